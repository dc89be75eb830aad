package client

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Socket is the path of the socket of a workspace's worker, in /tmp/quartet-UID, which it makes if need be. It is an error
// when that folder is another user's, a link, or open to others. The path is short, since sockets' paths end at 108 bytes.
func Socket(workspace string) (string, error) {
	return socketIn(filepath.Join("/tmp", "quartet-"+strconv.Itoa(os.Getuid())), workspace)
}

func socketIn(dir, workspace string) (string, error) {
	workspace, err := resolved(workspace)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make the sockets' folder: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("look at the sockets' folder: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a folder; remove it, since the worker's socket must lie in a folder of your own", dir)
	case int(owner) != os.Getuid():
		return "", fmt.Errorf("%s belongs to user %d; ask them or an administrator to remove it, since the worker's socket must lie in a folder of your own", dir, owner)
	case info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("%s is open to other users; run `chmod 700 %[1]s`", dir)
	}
	sum := sha256.Sum256([]byte(workspace))
	return filepath.Join(dir, hex.EncodeToString(sum[:10])+".sock"), nil
}

// resolved is a workspace's one absolute path, so that all its names lead to the same worker.
func resolved(workspace string) (string, error) {
	path, err := filepath.Abs(workspace)
	if err != nil {
		return "", fmt.Errorf("find workspace %s: %w", workspace, err)
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("find workspace %s: there is no such folder", workspace)
	}
	if err != nil {
		return "", fmt.Errorf("find workspace %s: %w", workspace, err)
	}
	return real, nil
}
