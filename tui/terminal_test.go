package tui

import (
	"encoding/base64"
	"strings"
	"testing"

	"quartet/event"
)

// TestSequencesReachTheTerminal copies an answer and ends a stage on a terminal, inside tmux and inside screen. What the model
// wrote is made safe before it is on the clipboard.
func TestSequencesReachTheTerminal(t *testing.T) {
	copied := base64.StdEncoding.EncodeToString([]byte(`plain \x1b[31m red`))
	for _, c := range []struct{ name, environment, copy, notify string }{
		{"a terminal", "TERM=xterm-256color", "\x1b]52;c;" + copied + "\x07", "\x1b]9;quartet: lora is done\x07"},
		{"tmux", "TMUX=/nowhere,1,0", "\x1b]52;c;" + copied + "\x07\x1bPtmux;\x1b\x1b]52;c;" + copied + "\x07\x1b\\", "\x1bPtmux;\x1b\x1b]9;quartet: lora is done\x07\x1b\\"},
		{"screen", "STY=1.pts-0.box", "\x1bP\x1b]52;c;" + copied + "\x07\x1b\\", "\x1bP\x1b]9;quartet: lora is done\x07\x1b\\"},
	} {
		b := newBench(t, 120, 40)
		b.m.o.Environment = []string{c.environment}
		written := ""
		b.m.raw = func(text string) { written += text }
		b.talk()
		b.m.chat.exchange.Answers[0].Text = "\n plain \x1b[31m red\n\n"
		b.press("y")
		if written != c.copy {
			t.Errorf("in %s a copy is %q, not %q", c.name, written, c.copy)
		}
		for how, want := range map[string]string{"bell": "\x07", "osc9": c.notify, "none": ""} {
			written = ""
			b.m.config.Workbench.Notify = how
			b.happen(event.Event{Kind: event.StageDone, Stage: "lora"})
			if written != want {
				t.Errorf("in %s the end of a stage by %s is %q, not %q", c.name, how, written, want)
			}
		}
	}
	b := newBench(t, 120, 40)
	b.m.o.Environment = []string{"STY=1.pts-0.box"}
	for piece := range strings.SplitSeq(b.m.clipboard(strings.Repeat("long ", 1000)), "\x1b\\") {
		if len(piece) > 80 {
			t.Fatalf("screen gets a piece of %d bytes", len(piece))
		}
	}
}
