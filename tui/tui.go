// Package tui is the workbench: the stages, the loss, four answers side by side, the results and the log of a workspace, on
// a terminal. It follows a worker's events and sends it requests; it never touches models or devices.
//
// There is one Bubble Tea model. Panes are plain structs with methods that draw lines; Update does no I/O, commands change no
// state, and one table of keys (keys.go) drives dispatch, help and the README's list. Text from outside passes theme.safe
// before it is drawn.
package tui

import (
	"context"
	"errors"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"golang.org/x/term"

	"quartet/event"
	"quartet/worker/client"
)

// Worker is what the workbench asks of a worker. All methods may be called at once.
type Worker interface {
	// Snapshot is the workspace's state in one piece.
	Snapshot(ctx context.Context) (*client.Snapshot, error)
	// Events gives what happens after the event of a number to visit, until visit's or the connection's error.
	Events(ctx context.Context, after int64, visit func(client.Numbered) error) error
	// Plan is what a run of the stages would do, which it does not do.
	Plan(ctx context.Context, request client.RunRequest) ([]event.PlanPart, error)
	// Run starts stages and returns at once.
	Run(ctx context.Context, request client.RunRequest) error
	// Cancel ends the run at work; training leaves a checkpoint.
	Cancel(ctx context.Context) error
	// Chat gives the variants' answers to visit, piece by piece, until all have ended or ctx has.
	Chat(ctx context.Context, request client.ChatRequest, visit func(client.ChatEvent)) error
	// Stop ends the worker, and with it what it does.
	Stop(ctx context.Context) error
}

// Options are what the workbench is started with.
type Options struct {
	// Open finds or starts the worker of a workspace. It is called when the workbench starts and whenever its user asks for a
	// worker again; an error is shown, and does not end the workbench.
	Open func(ctx context.Context, dir string) (Worker, error)
	// Dir is the workspace, an absolute path. Where it holds no config.toml the workbench offers to make one.
	Dir string
	// MakeDemo makes a folder the demo's workspace. WriteConfig writes a commented config.toml into a folder.
	MakeDemo, WriteConfig func(dir string) error
	// Replay says that the worker is a recording, which cannot be asked for anything.
	Replay bool

	Environment []string     // nil for the process's
	GPU         func() Meter // makes what reads the GPU, nil for NVML; see Meter

	now func() time.Time // of tests
}

// Run shows the workbench until its user leaves it or ctx ends. The worker goes on. The error is the terminal's.
func Run(ctx context.Context, o Options) error {
	if o.Environment == nil {
		o.Environment = os.Environ()
	}
	in, out := os.Stdin, os.Stdout
	m := newModel(ctx, o)
	defer m.close()
	paint, err := newPainter(in, out, o.Environment)
	if err != nil {
		return err
	}
	defer paint.close()
	paint.profile(m.profile)
	m.raw = paint.raw
	m.width, m.height, _ = term.GetSize(int(out.Fd()))
	p := tea.NewProgram(painted{m, paint}, tea.WithContext(ctx), tea.WithEnvironment(o.Environment), tea.WithInput(in), tea.WithOutput(out),
		tea.WithoutRenderer(), tea.WithFPS(1), tea.WithWindowSize(m.width, m.height), tea.WithoutSignalHandler())
	m.post = p.Send
	stream := make(chan tea.Msg)
	m.soon = func(msg tea.Msg) {
		select {
		case stream <- msg:
		case <-m.ctx.Done():
		}
	}
	go batch(stream, m.ctx.Done(), func(all bunchMsg) { p.Send(all) })
	done := make(chan struct{})
	defer close(done)
	go watchSize(out, p.Send, done)
	_, err = p.Run()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// profileOf is what the terminal can show, from its environment alone until it tells more.
func profileOf(environment []string) colorprofile.Profile { return colorprofile.Env(environment) }
