package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"quartet/visible"
)

// logBytes is the size above which the next worker begins a new log and keeps one former.
const logBytes = 1 << 20

// LogFile is where a workspace's worker writes what goes wrong.
func LogFile(workspace string) string {
	return filepath.Join(workspace, ".quartet", "logs", "worker.log")
}

// Open finds the worker of a workspace, or starts one in a session of its own, which outlives this process and its terminal.
// started tells which. Its error is Dial's, or why the worker did not come up.
func Open(ctx context.Context, workspace string) (c *Client, started bool, err error) {
	c, err = Dial(workspace)
	if !errors.Is(err, ErrNone) {
		return c, false, err
	}
	ended, err := start(workspace)
	if err != nil {
		return nil, false, err
	}
	for deadline := time.After(20 * time.Second); ; {
		if c, err = Dial(workspace); !errors.Is(err, ErrNone) {
			return c, true, err
		}
		select {
		case <-ended:
			if c, err = Dial(workspace); !errors.Is(err, ErrNone) { // another client's worker was first
				return c, false, err
			}
			return nil, false, fmt.Errorf("start the worker: %s", lastLine(LogFile(workspace)))
		case <-deadline:
			return nil, false, fmt.Errorf("start the worker: it does not answer; `quartet logs` shows what it does")
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// start runs this program as the worker of a workspace. ended is closed when that process ends.
func start(workspace string) (ended chan struct{}, err error) {
	if workspace, err = resolved(workspace); err != nil {
		return nil, err
	}
	path := LogFile(workspace)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.Size() > logBytes {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("start the worker: %w", err)
		}
	}
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(self, "worker", "-C", workspace)
	cmd.Args[0] = "quartet"
	cmd.Dir, cmd.Stdout, cmd.Stderr = workspace, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	ended = make(chan struct{})
	go func() {
		cmd.Wait() // its log tells why it ended
		close(ended)
	}()
	return ended, nil
}

// lastLine is the last line of a log, made safe to show.
func lastLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte{'\n'})
	return visible.Line(string(lines[len(lines)-1]))
}
