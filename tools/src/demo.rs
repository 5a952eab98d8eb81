//! stub
use crate::{Outcome, args::DemoArgs, progress::Console};
pub fn run(_: &DemoArgs, _: &Console) -> anyhow::Result<Outcome> {
    Ok(Outcome::Done)
}
