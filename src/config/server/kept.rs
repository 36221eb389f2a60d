//! The copy of the `server.yaml` that was taken over last.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::super::settings::Settings;
use super::super::source::{self, Owner};

impl Settings {
    /// Keeps a copy of the file at `copy`, which nobody else can read who can not read the file, if it says these settings: what [`Settings::kept`] reads when the file has become wrong.
    ///
    /// # Errors
    /// When the copy can not be written.
    pub fn keep(&self, copy: &Path) -> std::io::Result<()> {
        let Ok(Some(text)) = source::read(&self.file, Owner::Root) else {
            return Ok(());
        };
        let mut own = self.clone();
        if let Some(tls) = &mut own.front.tls {
            // They come from other files.
            tls.pairs.clear();
        }
        if Self::parse(&self.file, &text).is_ok_and(|settings| settings == own) {
            let new = copy.with_extension("new");
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut made = std::fs::OpenOptions::new();
            let mut made = made.write(true).create_new(true).mode(0o600).open(&new)?;
            made.write_all(text.as_bytes())?;
            // The file may lie where others can not come, and the copy does not.
            let mode = std::fs::metadata(&self.file)?.mode() & 0o660;
            made.set_permissions(Permissions::from_mode(mode))?;
            // After a power cut there is the old copy or the new one, and no empty file.
            made.sync_all()?;
            std::fs::rename(&new, copy)?;
        }
        Ok(())
    }

    /// The settings of the copy of `file` that was kept last, if there is one.
    pub fn kept(file: &Path, copy: &Path) -> Option<Self> {
        let text = source::read(copy, Owner::Root).ok()??;
        Self::parse(file, &text).ok()
    }
}
