//! What can be left out of a model, and into which parts the rest falls.

use super::model::{Curve, Model};
use crate::union::Union;

/// How many columns of a group are compared with all others of it.
const COMPARED: usize = 64;

/// The parts of a model that share nothing that could run short, the one with the first group first. Rows that cannot run
/// short are left out, and so are columns to which another of the group is preferable in every respect.
pub(super) fn split(model: &Model) -> Vec<Model> {
    let mut rows = binding_rows(model, None);
    let variables = binding_variables(model);
    let kept = undominated(model, &rows, &variables);
    if kept.contains(&false) {
        rows = binding_rows(model, Some(&kept));
    }
    let labels = labels(model, &rows, &variables, &kept);
    build(model, &rows, &variables, &kept, &labels)
}

/// Which rows could run short if everybody took the most.
fn binding_rows(model: &Model, kept: Option<&[bool]>) -> Vec<bool> {
    let mut total = vec![0.0; model.rows()];
    let mut most = vec![0.0_f64; model.rows()];
    for group in 0..model.groups() {
        let columns = || model.columns(group).filter(|&column| kept.is_none_or(|kept| kept[column]));
        for at in columns().flat_map(|column| model.entries(column)) {
            let row = model.row[at] as usize;
            most[row] = most[row].max(model.amount[at]);
        }
        for at in columns().flat_map(|column| model.entries(column)) {
            let row = model.row[at] as usize;
            total[row] += most[row];
            most[row] = 0.0;
        }
    }
    total.iter().zip(&model.capacity).map(|(total, capacity)| total > capacity).collect()
}

/// Which variables anybody could differ about.
fn binding_variables(model: &Model) -> Vec<bool> {
    let mut spans = vec![(f64::NEG_INFINITY, f64::INFINITY); model.accord.variables()];
    let mut ways = vec![(false, false); model.accord.variables()];
    for column in 0..model.candidate.len() {
        model.accord.each_claim(column, |variable, (low, high)| {
            let span: &mut (f64, f64) = &mut spans[variable];
            *span = (span.0.max(low), span.1.min(high));
        });
        model.accord.each_push(column, |variable, up| {
            let way: &mut (bool, bool) = &mut ways[variable];
            *way = (way.0 || up, way.1 || !up);
        });
    }
    spans.iter().zip(ways).map(|(span, way)| span.0 > span.1 || way == (true, true)).collect()
}

/// Which columns have none in their group that is worth as much, takes no more of any row, and claims nothing.
fn undominated(model: &Model, rows: &[bool], variables: &[bool]) -> Vec<bool> {
    let mut kept = vec![true; model.candidate.len()];
    let binds: Vec<bool> = (0..kept.len()).map(|column| model.accord.binds(column, variables)).collect();
    let mut curved = vec![false; kept.len()];
    for curve in &model.curves {
        let candidate = model.candidate[curve.column as usize];
        for column in model.columns(curve.group as usize).filter(|&column| model.candidate[column] == candidate) {
            curved[column] = true;
        }
    }
    let takes_less = |less: usize, more: usize| {
        let mut others = model.entries(more).peekable();
        model.entries(less).filter(|&at| rows[model.row[at] as usize]).all(|at| {
            while others.peek().is_some_and(|&other| model.row[other] < model.row[at]) {
                others.next();
            }
            others
                .peek()
                .is_some_and(|&other| model.row[other] == model.row[at] && model.amount[other] >= model.amount[at])
        })
    };
    let mut ranked: Vec<usize> = Vec::new();
    for group in 0..model.groups() {
        ranked.clear();
        ranked.extend(model.columns(group));
        ranked.sort_by(|&a, &b| model.value[b].total_cmp(&model.value[a]).then(a.cmp(&b)));
        for later in 1..ranked.len() {
            let column = ranked[later];
            let better = |&other: &usize| kept[other] && !binds[other] && takes_less(other, column);
            if !curved[column] && ranked[..later.min(COMPARED)].iter().any(better) {
                kept[column] = false;
            }
        }
    }
    kept
}

/// Of each group, the first group of its part.
fn labels(model: &Model, rows: &[bool], variables: &[bool], kept: &[bool]) -> Vec<u32> {
    let mut union = Union::new(model.groups());
    let mut user = vec![u32::MAX; rows.len() + variables.len()];
    let mut join = |what: usize, group: usize| {
        if user[what] == u32::MAX {
            user[what] = group as u32;
        } else {
            union.join(user[what] as usize, group);
        }
    };
    for group in 0..model.groups() {
        for column in model.columns(group).filter(|&column| kept[column]) {
            for at in model.entries(column).filter(|&at| rows[model.row[at] as usize]) {
                join(model.row[at] as usize, group);
            }
            let mut join = |variable: usize| {
                if variables[variable] {
                    join(rows.len() + variable, group);
                }
            };
            model.accord.each_claim(column, |variable, _| join(variable));
            model.accord.each_push(column, |variable, _| join(variable));
        }
    }
    (0..model.groups()).map(|group| union.name(group) as u32).collect()
}

fn build(model: &Model, rows: &[bool], variables: &[bool], kept: &[bool], labels: &[u32]) -> Vec<Model> {
    let mut members: Vec<Vec<u32>> = Vec::new();
    let mut part_of = vec![u32::MAX; model.groups()];
    for (group, &label) in labels.iter().enumerate() {
        if part_of[label as usize] == u32::MAX {
            part_of[label as usize] = members.len() as u32;
            members.push(Vec::new());
        }
        members[part_of[label as usize] as usize].push(group as u32);
    }
    let mut curve_at = vec![u32::MAX; if model.curves.is_empty() { 0 } else { model.candidate.len() }];
    for (at, curve) in model.curves.iter().enumerate() {
        curve_at[curve.column as usize] = at as u32;
    }
    let mut place = vec![u32::MAX; rows.len()];
    let mut used = Vec::new();
    members
        .iter()
        .map(|groups| {
            let mut part = Model { first: vec![0], start: vec![0], ..Model::default() };
            let mut from = Vec::new();
            for &group in groups {
                for column in model.columns(group as usize).filter(|&column| kept[column]) {
                    if let Some(&at) = curve_at.get(column).filter(|&&at| at != u32::MAX) {
                        let (group, column) = (part.party.len() as u32, part.candidate.len() as u32);
                        part.curves.push(Curve { group, column, ..model.curves[at as usize] });
                    }
                    part.candidate.push(model.candidate[column]);
                    part.fraction.push(model.fraction[column]);
                    part.value.push(model.value[column]);
                    for at in model.entries(column).filter(|&at| rows[model.row[at] as usize]) {
                        let row = model.row[at] as usize;
                        if place[row] == u32::MAX {
                            place[row] = part.capacity.len() as u32;
                            part.capacity.push(model.capacity[row]);
                            part.resource.push(model.resource[row]);
                            used.push(row);
                        }
                        part.row.push(place[row]);
                        part.amount.push(model.amount[at]);
                    }
                    part.start.push(part.row.len() as u32);
                    from.push(Some(column));
                }
                part.party.push(model.party[group as usize]);
                part.first.push(part.candidate.len() as u32);
            }
            used.drain(..).for_each(|row| place[row] = u32::MAX);
            part.accord = model.accord.select_if(&from, |variable| variables[variable as usize]);
            part
        })
        .collect()
}
