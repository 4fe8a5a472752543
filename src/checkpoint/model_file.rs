//! A model as a file of its own: what predictions need, without the state of its training.

use std::path::Path;

use crate::checkpoint::durable::write;
use crate::checkpoint::error::{CheckpointError, Damaged, Fault};
use crate::checkpoint::format::{decode, encode};
use crate::checkpoint::state::model_contents;
use crate::checkpoint::stored::Stored;
use crate::linalg::scalar::Scalar;
use crate::train::model::Model;

/// What errors call bytes that come from no file.
const BYTES: &str = "bytes";

impl<F: Scalar> Model<F> {
    /// Writes the model to a file, for predictions elsewhere: the network, its standardisation and
    /// its [`Products`](crate::Products), without moments, history and settings of the training.
    /// The file has the format of a checkpoint, of which it is a part, and is written under another
    /// name, synced and renamed, so that a file with its final name is whole. A file of this name
    /// is replaced.
    ///
    /// ```
    /// use gemmprop::{Bias, Mlp, Model};
    /// use gemmprop::ndarray::array;
    ///
    /// let folder = std::env::temp_dir().join(format!("gemmprop-model-{}", std::process::id()));
    /// std::fs::create_dir(&folder)?;
    /// let model = Model::from(Mlp::<f32>::he(&[2, 16, 3], Bias::EveryLayer, 1)?);
    /// model.save(folder.join("net.safetensors"))?;
    ///
    /// let served = Model::<f32>::load(folder.join("net.safetensors"))?;
    /// let x = array![[0.5, -0.5]];
    /// assert_eq!(served.predict(&x)?, model.predict(&x)?);
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the system refuses; what was there before is as it was then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
        write(path.as_ref(), &self.to_bytes()?).map_err(CheckpointError::refused)
    }

    /// What [`save`](Self::save) writes, as bytes.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if the contents make no valid file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        encode(&model_contents(self)).map_err(damaged)
    }

    /// Reads the model of a file that [`save`](Self::save) has written, or of one checkpoint,
    /// wherever that file has been moved to. ([`Stored::load`] gives its notes as well.)
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Stored::load(path.as_ref())?.value.model()
    }

    /// Reads the model from the bytes of such a file, which `include_bytes!` may have put into the
    /// program.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was expected and found.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let contents = decode(bytes).map_err(damaged)?.into_contents();
        Stored::from_contents(contents, BYTES)?.value.model()
    }
}

fn damaged(fault: Fault) -> CheckpointError {
    CheckpointError::Damaged(Damaged { path: BYTES.into(), fault })
}
