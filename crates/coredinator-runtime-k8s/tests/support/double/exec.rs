//! Commands beside a pod's program, over a WebSocket as the API server speaks it.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{
    http::refuse,
    kubelet,
    world::{Refusal, World},
};

const PROTOCOL: &str = "v5.channel.k8s.io";

pub(super) fn answer(world: &Arc<World>, namespace: &str, name: &str, request: &mut Request) -> Response {
    let Some(pod) = world.get("pods", namespace, name) else {
        return refuse(&Refusal(404, "NotFound", format!("pods {name:?} not found")));
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let words: Vec<String> = query.split('&').filter_map(|pair| pair.strip_prefix("command=")).map(decoded).collect();
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return refuse(&Refusal(400, "BadRequest", "Upgrade request required".to_owned()));
    };
    let upgrade = hyper::upgrade::on(request);
    let container = pod["spec"]["containers"][0].clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        run(socket, &container, &words).await;
    });
    let headers = [
        (header::CONNECTION, "Upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes())),
        (header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL.to_owned()),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// A text as it was before it was part of a query.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn run(socket: Socket, container: &Value, words: &[String]) {
    let (mut sink, mut stream) = socket.split();
    let status = match kubelet::beside(container, words).spawn() {
        Ok(mut child) => {
            let (sender, mut pieces) = mpsc::channel(16);
            let out = tokio::spawn(forward(child.stdout.take(), 1, sender.clone()));
            let err = tokio::spawn(forward(child.stderr.take(), 2, sender));
            loop {
                tokio::select! {
                    piece = pieces.recv() => match piece {
                        Some(piece) => {
                            if sink.send(Message::binary(piece)).await.is_err() {
                                return;
                            }
                        }
                        None => break,
                    },
                    heard = stream.next() => {
                        // Who asked is gone; the command is killed as it is dropped.
                        if !matches!(heard, Some(Ok(_))) {
                            return;
                        }
                    }
                }
            }
            let _ = tokio::join!(out, err);
            let ended = child.wait().await.expect("a child can be waited for");
            match ended.code() {
                Some(0) => json!({"metadata": {}, "status": "Success"}),
                code => {
                    let code = code.unwrap_or(137).to_string();
                    json!({
                        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                        "message": format!("command terminated with non-zero exit code: {code}"),
                        "details": {"causes": [{"reason": "ExitCode", "message": code}]},
                    })
                }
            }
        }
        Err(error) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("error executing command in container: exec: {error}: no such file or directory"),
        }),
    };
    for piece in [vec![255, 1], vec![255, 2], [&[3], status.to_string().as_bytes()].concat()] {
        if sink.send(Message::binary(piece)).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

async fn forward(from: Option<impl AsyncRead + Unpin>, channel: u8, sender: mpsc::Sender<Vec<u8>>) {
    let Some(mut from) = from else { return };
    let mut piece = vec![0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        if sender.send([&[channel], &piece[..read]].concat()).await.is_err() {
            return;
        }
    }
}
