//! stub
use std::time::Duration;
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub limit: u32,
    pub window: Duration,
    pub burst: u32,
}
#[derive(Clone, Copy, Debug)]
pub struct LimitId(pub u32);
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    pub limit: LimitId,
    pub scope: u128,
}
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    pub bucket: Bucket,
    pub rate: Rate,
}
#[derive(Clone, Copy, Debug, Default)]
pub struct Level {
    pub remaining: u32,
    pub reset: Duration,
}
pub struct Refused {
    pub at: usize,
    pub retry_after: Option<Duration>,
}
pub enum TakeError {
    Refused(Refused),
    Full,
}
pub struct Limiter;
impl Limiter {
    pub fn new(_: usize, _: usize) -> Self {
        Self
    }
    pub fn take(
        &self,
        _: &[Charge],
        _: u32,
        _: Duration,
        _: &mut [Level],
    ) -> Result<(), TakeError> {
        Ok(())
    }
    pub fn peek(
        &self,
        _: &[Charge],
        _: u32,
        _: Duration,
        _: &mut [Level],
    ) -> Result<(), TakeError> {
        Ok(())
    }
    pub fn len(&self) -> usize {
        0
    }
    pub fn sweep(&self, _: Duration) -> usize {
        0
    }
}
