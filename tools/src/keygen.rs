//! `adamant keygen`: a key that tells packages of one maker from those of others.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use adamant::package::SigningKey;
use anyhow::{Context, Result};

use crate::args::KeygenArgs;
use crate::{Outcome, output};

pub fn run(args: &KeygenArgs) -> Result<Outcome> {
    let key = SigningKey::generate()?;
    let public = args.out.with_extension("pub");
    anyhow::ensure!(
        public != args.out,
        "{}: the secret key needs another name than the public one",
        args.out.display()
    );
    if let Some(there) = [&args.out, &public].into_iter().find(|path| path.exists()) {
        anyhow::bail!("{}: exists, and a key is never replaced; choose another --out", there.display());
    }
    create(&args.out, &key.to_text(), true)?;
    create(&public, &(key.public_key() + "\n"), false)?;
    output::print(&format!(
        "{}: secret, keep it\n{}: public, {}\n",
        args.out.display(),
        public.display(),
        key.public_key()
    ))?;
    Ok(Outcome::Done)
}

/// Writes a file that was not there: a key is never replaced.
fn create(path: &Path, text: &str, secret: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let name = || path.display().to_string();
    let mut file = options.open(path).with_context(name)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(name)
}
