// Package screen runs a program on a pseudo-terminal and tells what the terminal shows: for tests that use the program as its
// users do, and for recordings of it.
package screen

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// Screen is a terminal with a program on it. Its methods may be called at once.
type Screen struct {
	width, height int
	tty           *os.File
	ended         chan struct{}

	mu       sync.Mutex
	terminal *vt.Emulator
	changed  chan struct{} // closed at the next change
	err      error         // how the program ended
}

// Start runs a program on a terminal of so many columns and lines, with 24-bit colours unless its environment says otherwise.
// It must be closed.
func Start(cmd *exec.Cmd, width, height int) (*Screen, error) {
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append([]string{"TERM=xterm-256color", "COLORTERM=truecolor", "LANG=C.UTF-8"}, cmd.Env...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)})
	if err != nil {
		return nil, fmt.Errorf("start %s on a terminal: %w", cmd.Path, err)
	}
	s := &Screen{width: width, height: height, tty: tty, ended: make(chan struct{}), terminal: vt.NewEmulator(width, height), changed: make(chan struct{})}
	go io.Copy(tty, s.terminal) // what the terminal answers
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := tty.Read(buf)
			s.mu.Lock()
			s.terminal.Write(buf[:n])
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
			if err != nil {
				break
			}
		}
		err := cmd.Wait()
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		close(s.ended)
	}()
	return s, nil
}

// Type sends keys as a terminal does.
func (s *Screen) Type(keys string) { io.WriteString(s.tty, keys) }

// Text is what the terminal shows, line by line.
func (s *Screen) Text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.terminal.String()
}

// Cells are what the terminal shows with its colours.
func (s *Screen) Cells() uv.ScreenBuffer {
	s.mu.Lock()
	defer s.mu.Unlock()
	cells := uv.NewScreenBuffer(s.width, s.height)
	for y := range s.height {
		for x := range s.width {
			cells.SetCell(x, y, s.terminal.CellAt(x, y))
		}
	}
	return cells
}

// Await waits until the terminal shows a text. Its error tells what it shows instead.
func (s *Screen) Await(text string, patience time.Duration) error {
	late := time.After(patience)
	for {
		s.mu.Lock()
		shown, changed := s.terminal.String(), s.changed
		s.mu.Unlock()
		if strings.Contains(shown, text) {
			return nil
		}
		select {
		case <-changed:
		case <-s.ended:
			return fmt.Errorf("the program ended before it showed %q; the screen:\n%s", text, shown)
		case <-late:
			return fmt.Errorf("%q was not shown within %v; the screen:\n%s", text, patience, shown)
		}
	}
}

// Wait waits until the program has ended, and returns how.
func (s *Screen) Wait(patience time.Duration) error {
	select {
	case <-s.ended:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err
	case <-time.After(patience):
		return fmt.Errorf("the program did not end within %v; the screen:\n%s", patience, s.Text())
	}
}

// Close takes the terminal away, as when a window is closed.
func (s *Screen) Close() {
	s.tty.Close()
	s.terminal.Close()
}
