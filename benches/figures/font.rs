//! The font of everything drawn, embedded.

use plotters::style::{FontStyle, register_font};

/// Makes the font known under a name. criterion's own plots, drawn by the same library, ask for "sans-serif".
pub(crate) fn register(name: &str) {
    if register_font(name, FontStyle::Normal, dejavu::sans::regular()).is_err() {
        unreachable!("the embedded font is a font");
    }
}
