//! Listening on a Unix socket at a path.
//!
//! The file of a socket outlives its program. A lock on `PATH.lock`, which the kernel releases when the program ends, tells a socket in
//! use from one that a killed gateway left behind.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::listen::BACKLOG;

/// Clients need the permission to write. Access for others is a matter of the folder, or of a proxy's group.
const MODE: u32 = 0o660;
/// Before the socket listens, nobody may connect.
const MODE_WHILE_BINDING: u32 = 0o600;

/// The file of a socket. Dropping it removes the file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number of the file.
    identity: (u64, u64),
    _lock: File,
}

/// Listens on a path. A socket that a gateway left there is replaced.
///
/// # Errors
/// `AddrInUse` if a program listens there, `AlreadyExists` if the path is something else.
pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            // A program without the lock, such as another server.
            if UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None)?));
    // The file gets this mode, without those of the umask.
    socket.set_permissions(Permissions::from_mode(MODE_WHILE_BINDING))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    let found = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()), _lock: lock };
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(name)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::AddrInUse.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Something else may be at the path by now.
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_use_is_kept_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let (listener, file) = bind(&path).expect("the path is free");
        assert_eq!(fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, MODE);
        assert_eq!(bind(&path).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
        drop((listener, file));
        assert!(!path.exists(), "removed at the end");

        // As after a kill: the file exists, nobody listens, nobody has the lock.
        drop(UnixListener::bind(&path).expect("the path is free"));
        let (listener, file) = bind(&path).expect("the socket is stale");
        UnixStream::connect(&path).expect("the gateway listens");
        // Another program has replaced the file, which is not removed then.
        fs::remove_file(&path).expect("the socket exists");
        let other = UnixListener::bind(&path).expect("the path is free");
        drop((listener, file));
        assert_eq!(bind(&path).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
        drop(other);
    }

    #[test]
    fn other_files_are_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "content").expect("a file");
        assert_eq!(bind(&path).expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("the file"), b"content");
        assert!(bind(Path::new(&format!("/tmp/{}", "long".repeat(40)))).is_err());
    }
}
