//! An answer that comes later, from a thread or from a device: a future for any executor.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};

/// Who waits. Dropping it leaves the work to end by itself, unheard.
pub(crate) struct Pending<T> {
    shared: Arc<Mutex<Shared<T>>>,
}

/// Who answers: with an error, where it is dropped before.
pub(crate) struct Answer<T> {
    shared: Arc<Mutex<Shared<T>>>,
    /// What it means when none is given.
    otherwise: &'static str,
    given: bool,
}

struct Shared<T> {
    answer: Option<Result<T>>,
    waker: Option<Waker>,
}

fn lock<T>(shared: &Mutex<Shared<T>>) -> MutexGuard<'_, Shared<T>> {
    // Nothing that can panic runs under the lock.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer, and who waits for it. An answer that is never given is the error `otherwise`.
pub(crate) fn pending<T>(otherwise: &'static str) -> (Answer<T>, Pending<T>) {
    let shared = Arc::new(Mutex::new(Shared { answer: None, waker: None }));
    (Answer { shared: Arc::clone(&shared), otherwise, given: false }, Pending { shared })
}

impl<T> Answer<T> {
    pub fn give(mut self, answer: Result<T>) {
        self.given = true;
        self.put(answer);
    }

    fn put(&self, answer: Result<T>) {
        let mut shared = lock(&self.shared);
        shared.answer = Some(answer);
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if !self.given {
            self.put(Err(Error::Device(self.otherwise.into())));
        }
    }
}

impl<T> Pending<T> {
    /// The answer, where it is there.
    #[cfg(feature = "gpu")]
    pub fn take(&self) -> Option<Result<T>> {
        lock(&self.shared).answer.take()
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
pub(crate) mod tests {
    use std::task::Wake;
    use std::thread;

    use super::*;

    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn waker() -> Waker {
        Waker::from(Arc::new(Unpark(thread::current())))
    }

    /// Waits for a future as an executor does: sleeping until it is woken.
    pub fn wait<T>(future: impl Future<Output = T>) -> T {
        let waker = waker();
        let mut future = std::pin::pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// What a future gives that may not wait for anything.
    pub fn at_once<T>(future: impl Future<Output = T>) -> T {
        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn who_waits_is_woken() {
        let (answer, pending) = pending::<u32>("nobody answered");
        let mut pending = Box::pin(pending);
        // Not there yet: asking does not block.
        assert!(pending.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
        let thread = thread::spawn(move || answer.give(Ok(7)));
        assert_eq!(wait(pending).expect("it was given"), 7);
        thread.join().expect("it gave the answer");
    }

    #[test]
    fn no_answer_is_an_error() {
        let (answer, pending) = pending::<()>("nobody answered");
        let thread = thread::spawn(move || drop(answer));
        assert!(wait(pending).expect_err("it was dropped").to_string().contains("nobody answered"));
        thread.join().expect("it ends");
    }
}
