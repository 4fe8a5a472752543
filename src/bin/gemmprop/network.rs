//! The network of a checkpoint.

use std::path::Path;

use gemmprop::{
    Model,
    checkpoint::{Checkpoints, Notes, Saved, Stored},
};

use crate::message::{Result, say};
use crate::task::Task;

/// The name of the checkpoint note that holds the [`Task`].
pub(crate) const TASK: &str = "task";

/// The task that a checkpoint records for its run.
pub(crate) fn task(notes: &Notes) -> Result<Task> {
    let note =
        notes.get(TASK).ok_or("the checkpoint was written by another program: it has no note of what is learned")?;
    Ok(serde_json::from_str(note)?)
}

/// A checkpoint file, or the newest checkpoint of a folder, which has to be intact.
pub(crate) fn read(path: &Path) -> Result<Saved<Stored>> {
    if path.is_file() {
        return Ok(Stored::load(path)?);
    }
    let stored = Checkpoints::open(path)?.read()?;
    if let [damaged, ..] = &stored.damaged[..] {
        let whole = stored.path.display();
        return Err(format!("{damaged}; the newest intact checkpoint is {whole}; --checkpoint {whole} takes it").into());
    }
    Ok(stored)
}

/// The task and the network of a checkpoint.
pub(crate) fn network(path: &Path) -> Result<(Task, Model<f32>)> {
    let stored = read(path)?;
    let task = task(&stored.notes)?;
    // The network of the best epoch so far; when a run ends, its network already is that one.
    let (model, best) = (stored.value.model()?, stored.value.best_model()?);
    if let Some(best) = best.filter(|best| *best != model) {
        say("note: the run has not ended; predicting with the network of its best epoch so far");
        return Ok((task, best));
    }
    Ok((task, model))
}
