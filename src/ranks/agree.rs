//! How ranks stay together: after whatever one rank does by itself, and may fail in, all of them
//! learn of it before any goes on.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use crate::error::{Error, Result};
use crate::ranks::group::Collective;

/// The most bytes of a message that reach the other ranks.
const REASON: usize = 1000;

/// What came of work that a rank does by itself: a result, or a panic.
pub(crate) type Own<T, E> = thread::Result<Result<T, E>>;

/// Work of a rank by itself, whose panic is for [`Agreement::agree`] to report.
pub(crate) fn alone<T, E>(work: impl FnOnce() -> Result<T, E>) -> Own<T, E> {
    // After a panic nothing is used of what the work has changed: the call ends on every rank.
    catch_unwind(AssertUnwindSafe(work))
}

/// What the ranks tell each other during a call. Every message has the same length, so a rank that
/// has failed anywhere can say so in place of what the others expect next.
pub(crate) struct Agreement<'g, G> {
    pub(crate) group: &'g G,
    /// How many numbers a rank gives each time.
    numbers: usize,
    /// Whether all ranks know of a failure.
    has_failed: Cell<bool>,
    /// The error of an observer, which cannot return it.
    of_observer: RefCell<Option<Error>>,
}

impl<'g, G> Agreement<'g, G> {
    pub(crate) fn new(group: &'g G, numbers: usize) -> Self {
        Self { group, numbers, has_failed: Cell::new(false), of_observer: RefCell::new(None) }
    }

    /// Goes on if the work of every rank has succeeded, with at most as many numbers of each as it
    /// may give, followed by zeros. Otherwise a rank that has failed returns its error, or
    /// continues its panic, and each other one returns [`Error::Rank`].
    pub(crate) fn agree<F, T, E: Display + From<Error>>(
        &self,
        own: Own<T, E>,
        numbers: &[f64],
    ) -> Result<(T, Vec<f64>), E>
    where
        G: Collective<F>,
    {
        debug_assert!(!self.has_failed.get(), "nothing is agreed on after a failure");
        let failed = !matches!(own, Ok(Ok(_)));
        let mut sent = vec![0.0; 1 + self.numbers];
        sent[0] = f64::from(u8::from(failed));
        sent[1..=numbers.len()].copy_from_slice(numbers);
        let mut all = vec![0.0; self.group.ranks() * sent.len()];
        self.group.gather(&sent, &mut all);
        let mut of_ranks = all.chunks_exact(sent.len());
        let Some(rank) = of_ranks.position(|of_rank| of_rank[0] != 0.0) else {
            let numbers = all.chunks_exact(sent.len()).flat_map(|of_rank| &of_rank[1..]).copied().collect();
            return own.unwrap_or_else(|panic| resume_unwind(panic)).map(|done| (done, numbers));
        };
        // Of several failures the others hear the first.
        let reason = reason(&own);
        let mut bytes = [0; REASON];
        bytes[..reason.len()].copy_from_slice(reason.as_bytes());
        self.group.broadcast(rank, &mut bytes);
        self.has_failed.set(true);
        self.group.all_have_failed();
        match own {
            Ok(Ok(_)) => {
                let reason = String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned();
                Err(Error::Rank { rank, reason }.into())
            }
            Ok(Err(error)) => Err(error),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Notes that the ranks have parted: one of them has failed where the others did not ask.
    pub(crate) fn abandon(&self) {
        self.has_failed.set(true);
    }

    /// Ends the call with this error once its observer has returned.
    pub(crate) fn end_with(&self, error: Error) {
        *self.of_observer.borrow_mut() = Some(error);
    }

    /// The error that the call is to end with.
    pub(crate) fn ended(&self) -> Result<()> {
        self.of_observer.take().map_or(Ok(()), Err)
    }

    /// The end of a call: what came of it on this rank. If it has failed, the others learn of it
    /// now, unless they know.
    pub(crate) fn conclude<F, T, E: Display + From<Error>>(&self, own: Own<T, E>) -> Result<T, E>
    where
        G: Collective<F>,
    {
        if self.has_failed.get() {
            return own.unwrap_or_else(|panic| resume_unwind(panic));
        }
        self.agree(own, &[]).map(|(done, _)| done)
    }
}

/// What the other ranks are told of a failure, in at most so many bytes.
fn reason<T, E: Display>(own: &Own<T, E>) -> String {
    let mut reason = match own {
        Ok(Ok(_)) => String::new(),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("panicked: {}", message(panic.as_ref())),
    };
    while reason.len() > REASON {
        reason.pop();
    }
    reason
}

/// The text of a panic, if it has one.
fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without a message",
    }
}
