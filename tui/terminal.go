package tui

import (
	"context"
	"encoding/base64"
	"os/exec"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"

	"quartet/event"
)

// replies follows what the terminal was asked. Answers that came after the program has left would be typed into the shell, so
// that leaving waits a moment for them; the last question is one that nearly every terminal answers.
type replies struct {
	asked time.Time
	all   bool // the last one has been answered
}

// quitMsg leaves once the terminal has answered or the moment is over.
type quitMsg struct{}

// How long after it was asked a terminal may still answer, and how long leaving waits for it.
const (
	slowestReply  = 2 * time.Second
	replyPatience = 80 * time.Millisecond
)

// query asks for the background's colour and for synchronised output, whose answers switch on what they allow.
func (m *model) query() tea.Cmd {
	m.replies.asked = time.Now()
	return m.sequence(ansi.RequestBackgroundColor + ansi.RequestModeSynchronizedOutput + ansi.RequestPrimaryDeviceAttributes)
}

// sequence writes a sequence that draws nothing to the terminal.
func (m *model) sequence(text string) tea.Cmd {
	raw := m.raw
	return func() tea.Msg {
		raw(text)
		return nil
	}
}

// other takes a message that nobody else knows, and reports whether it changes nothing on the screen.
func (r *replies) other(msg tea.Msg) bool {
	if _, ok := msg.(uv.PrimaryDeviceAttributesEvent); ok {
		r.all = true
	}
	return true
}

// leave quits at once where every reply is there or none will come.
func (r *replies) leave() tea.Cmd {
	if r.all || time.Since(r.asked) > slowestReply {
		return tea.Quit
	}
	return tea.Tick(replyPatience, func(time.Time) tea.Msg { return quitMsg{} })
}

// environ looks a variable up in the workbench's environment.
func (m *model) environ(name string) string {
	value := ""
	for _, e := range m.o.Environment {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// clipboard is the sequence that puts text on the clipboard of the terminal (OSC 52). tmux takes the plain one where
// set-clipboard is on and passes the wrapped one on where allow-passthrough is; screen passes on pieces of limited length.
func (m *model) clipboard(text string) string {
	plain := "\x1b]52;c;" + base64.StdEncoding.EncodeToString([]byte(text)) + "\x07"
	if m.environ("TMUX") != "" {
		return plain + m.through(plain)
	}
	return m.through(plain)
}

// through wraps a sequence so that tmux or screen, if one of them is between, passes it on to the terminal.
func (m *model) through(sequence string) string {
	switch {
	case m.environ("TMUX") != "":
		return ansi.TmuxPassthrough(sequence)
	case m.environ("STY") != "" || strings.HasPrefix(m.environ("TERM"), "screen"):
		return ansi.ScreenPassthrough(sequence, 76)
	}
	return sequence
}

// copyText copies by the terminal, and inside tmux by tmux as well, which works whatever its options are.
func (m *model) copyText(text, what string) tea.Cmd {
	if text == "" {
		m.notice = "nothing to copy here"
		return nil
	}
	m.notice = "copied " + what
	cmds := []tea.Cmd{m.sequence(m.clipboard(text))}
	if m.environ("TMUX") != "" {
		ctx := m.ctx
		cmds = append(cmds, func() tea.Msg {
			ctx, stop := context.WithTimeout(ctx, time.Second)
			defer stop()
			load := exec.CommandContext(ctx, "tmux", "load-buffer", "-w", "-")
			load.Stdin = strings.NewReader(text)
			load.Run() // the sequence is there besides
			return nil
		})
	}
	return tea.Batch(cmds...)
}

// ring tells a person who looks elsewhere that a stage has ended.
func (m *model) ring(e event.Event) tea.Cmd {
	how := "bell"
	if m.config != nil {
		how = m.config.Workbench.Notify
	}
	text := e.Stage + " is done"
	if e.Kind == event.StageFailed {
		text = e.Stage + " failed"
	}
	switch how {
	case "bell":
		return m.sequence("\x07")
	case "osc9":
		return m.sequence(m.through(ansi.Notify(m.theme.safe("quartet: " + text))))
	}
	return nil
}
