package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// sendBuffer bounds what the system holds for a client that does not read. What a slow client then gets next is not old.
const sendBuffer = 32 << 10

// listen opens the worker's socket. The caller holds the workspace's lock, so a socket that lies there is a dead worker's.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove a former worker's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the worker's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the worker's socket: %w", err)
	}
	return narrow{l}, nil
}

// narrow is a listener whose connections hold little back.
type narrow struct{ net.Listener }

// Accept waits for a client.
func (n narrow) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if err := c.(*net.UnixConn).SetWriteBuffer(sendBuffer); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
