//! An answer that is being computed on another thread: a future for any executor.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use crate::error::{Error, Result};

/// Dropping it leaves the work to end by itself, unheard.
pub(super) struct Pending<T> {
    shared: Arc<Mutex<Shared<T>>>,
}

struct Shared<T> {
    answer: Option<Result<T>>,
    waker: Option<Waker>,
}

/// Answers when the work is over, whatever way it ends.
struct Answering<T> {
    shared: Arc<Mutex<Shared<T>>>,
    answer: Option<Result<T>>,
}

fn lock<T>(shared: &Mutex<Shared<T>>) -> MutexGuard<'_, Shared<T>> {
    // Nothing that can panic runs under the lock but wakers, after the answer is there.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> Pending<T> {
    /// Starts `work` on a thread of its own. Not on the pool that kernels run on: there it could wait for itself.
    ///
    /// # Errors
    /// [`Error::Limit`] when the system refuses another thread.
    pub fn new(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<Self> {
        let shared = Arc::new(Mutex::new(Shared { answer: None, waker: None }));
        let answering = Answering { shared: Arc::clone(&shared), answer: None };
        let thread = thread::Builder::new().name("classify".into());
        let spawned = thread.spawn(move || answering.with(work));
        spawned.map_err(|e| Error::Limit(format!("no thread to classify on: {e}")))?;
        Ok(Self { shared })
    }
}

impl<T> Answering<T> {
    fn with(mut self, work: impl FnOnce() -> Result<T>) {
        self.answer = Some(work());
    }
}

impl<T> Drop for Answering<T> {
    fn drop(&mut self) {
        let panicked = || Err(Error::Device("the thread that classified panicked".into()));
        let answer = self.answer.take().unwrap_or_else(panicked);
        let mut shared = lock(&self.shared);
        shared.answer = Some(answer);
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let mut shared = lock(&self.shared);
        match shared.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                shared.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;
    use std::task::Wake;

    use super::*;

    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Waits for a future as an executor does: sleeping until it is woken.
    pub fn wait<T>(future: impl Future<Output = T>) -> T {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut future = std::pin::pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn who_waits_is_woken() {
        let (go, gone) = mpsc::channel::<u32>();
        let pending = Pending::new(move || Ok(gone.recv().expect("it is sent"))).expect("a thread");
        let mut pending = Box::pin(pending);
        // Not there yet: asking does not block.
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        assert!(pending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        go.send(7).expect("the thread waits");
        assert_eq!(wait(pending).expect("it was sent"), 7);
    }

    #[test]
    fn a_panic_is_an_error() {
        let pending = Pending::<()>::new(|| panic!("on purpose")).expect("a thread");
        assert!(wait(pending).expect_err("it panicked").to_string().contains("panicked"));
    }
}
