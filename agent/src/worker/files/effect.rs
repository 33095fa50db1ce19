//! The instants at which a crash is simulated.

use std::io;

/// Called before every change of the disk. In the product it does nothing.
#[cfg(not(test))]
#[inline]
pub fn begin() -> io::Result<()> {
    Ok(())
}

/// Called before every change of the disk. Fails, and goes on failing, once the budget of this thread is used up:
/// the changes already made stay, nothing more happens, as after SIGKILL.
#[cfg(test)]
pub fn begin() -> io::Result<()> {
    budget::spend()
}

#[cfg(test)]
pub mod budget {
    //! How many changes of the disk a test allows before it "kills" the process.

    use std::cell::RefCell;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    thread_local! {
        static LEFT: RefCell<Option<Arc<AtomicI64>>> = const { RefCell::new(None) };
    }

    /// Allows `effects` changes on this thread; `None` allows all.
    pub fn allow(effects: Option<i64>) {
        LEFT.with(|left| *left.borrow_mut() = effects.map(|n| Arc::new(AtomicI64::new(n))));
    }

    /// The budget of this thread, for a thread that works for it.
    pub fn share() -> Option<Arc<AtomicI64>> {
        LEFT.with(|left| left.borrow().clone())
    }

    /// Takes over another thread's budget.
    pub fn take_over(budget: Option<Arc<AtomicI64>>) {
        LEFT.with(|left| *left.borrow_mut() = budget);
    }

    /// Whether the budget was used up: the process is "dead".
    pub fn is_spent() -> bool {
        LEFT.with(|left| left.borrow().as_ref().is_some_and(|n| n.load(Ordering::SeqCst) < 0))
    }

    pub(super) fn spend() -> io::Result<()> {
        LEFT.with(|left| match left.borrow().as_ref() {
            Some(n) if n.fetch_sub(1, Ordering::SeqCst) <= 0 => Err(io::Error::other("simulated crash")),
            _ => Ok(()),
        })
    }
}
