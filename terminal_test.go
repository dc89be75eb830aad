package main

import (
	"bytes"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"
)

// terminal is a pseudo-terminal of 120 × 40 with the program on it.
type terminal struct {
	tty *os.File
	cmd *exec.Cmd
	end func() error // waits for the program's end

	mu     sync.Mutex
	tail   []byte // the newest of what was written
	tall   bool
	silent chan struct{} // closed when the program's last byte has come
}

// tailBytes is what a terminal remembers: more than a whole frame, twice.
const tailBytes = 64 << 10

// onPTY starts the program on a terminal of its own, in a session of its own, as a login has it. The terminal reads with read,
// nil for as fast as it can.
func onPTY(t *testing.T, read func(*os.File, []byte) (int, error), program string, args ...string) *terminal {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LANG=C.UTF-8", "TMUX=", "CI=")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 120})
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{tty: tty, cmd: cmd, end: sync.OnceValue(cmd.Wait), silent: make(chan struct{})}
	if read == nil {
		read = (*os.File).Read
	}
	go func() {
		defer close(x.silent)
		piece := make([]byte, 32<<10)
		for {
			n, err := read(tty, piece)
			x.mu.Lock()
			x.tail = append(x.tail, piece[:n]...)
			x.tail = x.tail[max(0, len(x.tail)-tailBytes):]
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		x.end()
		tty.Close()
	})
	return x
}

// shows waits until the terminal shows a text, and tells how long that took. The terminal is resized while it waits, since
// the workbench writes only the cells that change, and whole lines when the size does.
func (x *terminal) shows(t *testing.T, text string, patience time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		x.mu.Lock()
		found := bytes.Contains(x.tail, []byte(text))
		x.mu.Unlock()
		took := time.Since(began)
		if found {
			return took
		}
		if took > patience {
			x.mu.Lock()
			defer x.mu.Unlock()
			t.Fatalf("%q did not show within %v:\n%s", text, patience, ansi.Strip(string(x.tail[max(0, len(x.tail)-8<<10):])))
		}
		x.tall = !x.tall
		size := &pty.Winsize{Rows: 40, Cols: 120}
		if x.tall {
			size.Rows++
		}
		if err := pty.Setsize(x.tty, size); err != nil {
			t.Fatalf("%q did not show: %v", text, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// press types, and forgets what was shown before.
func (x *terminal) press(t *testing.T, keys string) {
	t.Helper()
	x.mu.Lock()
	x.tail = nil
	x.mu.Unlock()
	if _, err := x.tty.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// The ways in which a client ends without being asked, in turn.
var killings = []struct {
	name string
	do   func(*terminal) error
}{
	{"SIGHUP", func(x *terminal) error { return x.cmd.Process.Signal(syscall.SIGHUP) }},
	{"SIGKILL", func(x *terminal) error { return x.cmd.Process.Signal(syscall.SIGKILL) }},
	{"closed terminal", func(x *terminal) error { return x.tty.Close() }},
}
