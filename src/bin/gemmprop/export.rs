//! The command `export`.

use gemmprop::exchange::{OnnxExport, OutputFunction};
use gemmprop::{Model, Standardizer};
use serde_json::json;

use crate::arguments::Export;
use crate::message::{Result, print_json, quoted, say};
use crate::network::network;
use crate::output::check_output;
use crate::task::Task;
use crate::values::LossKind;

pub(crate) fn export(arguments: &Export, json: bool) -> Result {
    let Export { checkpoint, onnx } = arguments;
    check_output(onnx, &[&Some(checkpoint.clone())])?;
    let (task, model) = network(checkpoint)?;
    let inputs = model.mlp.widths()[0];
    let model = whole(&task, model)?;
    let output = match task.loss {
        LossKind::Softmax => OutputFunction::Softmax,
        LossKind::Logistic => OutputFunction::Sigmoid,
        LossKind::Squared => OutputFunction::Identity,
    };
    model.write_onnx(onnx, &OnnxExport { output, classes: task.classes.clone() })?;
    let names = task.table_inputs().names();
    if json {
        return print_json(&json!({ "onnx": onnx, "inputs": inputs, "names": names, "classes": task.classes }));
    }
    let of = if names.is_empty() { String::new() } else { format!(": {}", quoted(&names)) };
    say(format!("{}: x has {inputs} columns{of}", onnx.display()));
    Ok(())
}

/// The network with what the program does before and behind it: it standardises the inputs, and
/// gives numbers on the scale of the target.
fn whole(task: &Task, mut model: Model<f32>) -> Result<Model<f32>> {
    if let Some(scales) = task.inputs.as_ref().filter(|scales| !scales.is_empty()) {
        let (mean, factor): (Vec<f64>, Vec<f64>) =
            scales.iter().map(|(mean, deviation)| (*mean, 1.0 / deviation)).unzip();
        model.standardizer = Some(Standardizer::from_parts(mean.into(), factor.into())?);
    }
    if !task.scale.is_empty() {
        let mut theta = model.mlp.parameters_mut();
        for (mut row, (_, deviation)) in theta.alpha_mut().outer_iter_mut().zip(&task.scale) {
            row.mapv_inplace(|weight| (f64::from(weight) * deviation) as f32);
        }
        for (b, (mean, deviation)) in theta.b_mut().iter_mut().zip(&task.scale) {
            *b = (f64::from(*b) * deviation + mean) as f32;
        }
    }
    Ok(model)
}
