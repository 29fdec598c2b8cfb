#!/bin/sh
# Builds the image of plant.yaml beside this script, from a program that has been built already:
#   cargo build --release && examples/containers/image.sh [PROGRAM [IMAGE]]
set -eu
program=${1:-target/release/quickstart}
image=${2:-coredinator-quickstart:1}
here=$(cd "$(dirname "$0")" && pwd)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/image/usr/bin"
cp "$program" "$context/image/usr/bin/quickstart"
# A program that is linked statically names none.
ldd "$program" | grep -o '/[^ )]*' | while read -r library; do
    mkdir -p "$context/image${library%/*}"
    cp -L "$library" "$context/image$library"
done
docker build --quiet --tag "$image" --file "$here/Dockerfile" "$context"
