// Package console shows a run's events in the foreground: live on a terminal, as plain lines elsewhere, or as JSON.
package console

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"quartet/eval"
	"quartet/event"
	"quartet/visible"
)

// Mode is how events are shown.
type Mode int

// The modes: Plain writes lines; Live adds a progress line that is rewritten; JSON writes one event a line.
const (
	Plain Mode = iota
	Live
	JSON
)

// ModeFor is JSON if asked for, Live on a terminal that can rewrite a line, and otherwise Plain.
func ModeFor(w io.Writer, asJSON bool) Mode {
	if asJSON {
		return JSON
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		return Live
	}
	return Plain
}

// Width is the terminal's columns, or 100 where w is none.
func Width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return 100
}

// Color reports whether w is a terminal whose user has not asked for none (https://no-color.org).
func Color(w io.Writer) bool { return os.Getenv("NO_COLOR") == "" && ModeFor(w, false) == Live }

// console is the state behind a Sink.
type console struct {
	w     io.Writer
	mode  Mode
	color bool
	width func() int

	started time.Time // of the stage
	shown   time.Time // when progress was last shown
	step    int       // optimiser steps shown so far
	live    bool      // a progress line stands on the screen
}

// The least time between two progress lines.
const (
	liveEvery  = 100 * time.Millisecond
	plainEvery = 5 * time.Second
)

// New is a sink that shows events on w. Untrusted text in them is made visible, never sent raw.
func New(w io.Writer, mode Mode, color bool) event.Sink {
	c := &console{w: w, mode: mode, color: color, width: func() int { return Width(w) }}
	return c.show
}

func (c *console) show(e event.Event) {
	if c.mode == JSON {
		if line, err := json.Marshal(e); err == nil {
			fmt.Fprintf(c.w, "%s\n", visible.JSON(line))
		}
		return
	}
	switch e.Kind {
	case event.Plan:
		c.line("%s", strings.TrimRight(PlanText(e.Plan), "\n"))
	case event.StageStarted:
		c.started, c.shown, c.step = e.Time, e.Time, 0
		c.line("%s starts: %s", c.paint(bold, name(e.Stage)), visible.Line(e.Text))
	case event.StageFresh:
		c.line("%s nothing to do", c.paint(bold, name(e.Stage)))
	case event.Progress:
		c.progress(e.Time, progressText(*e.Progress))
	case event.TrainStep:
		c.trainStep(e)
	case event.Preview:
		c.preview(*e.Preview)
	case event.Log:
		c.line("  %s", visible.Text(e.Text))
	case event.Warning:
		c.line("  %s %s", c.paint(yellow, "warning:"), visible.Text(e.Text))
	case event.StageDone:
		c.line("%s %s in %s%s", c.paint(bold, name(e.Stage)), c.paint(green, "done"), duration(e.Seconds), figures(e.Figures))
	case event.StageFailed:
		c.line("%s %s %s", c.paint(bold, name(e.Stage)), c.paint(red, map[bool]string{false: "failed:", true: "interrupted:"}[e.Canceled]), visible.Text(e.Text))
	case event.Results:
		c.results(e)
	case event.RunDone:
		if e.Text == "" {
			c.line("all done in %s", duration(e.Seconds))
		} else if c.live { // the error is told elsewhere
			fmt.Fprintln(c.w)
			c.live = false
		}
	}
}

// line writes a lasting line, in the place of the progress line if one stands.
func (c *console) line(format string, args ...any) {
	if c.live {
		fmt.Fprint(c.w, "\r\x1b[K")
		c.live = false
	}
	fmt.Fprintf(c.w, format+"\n", args...)
}

// progress shows a passing line: rewritten on a terminal, now and then elsewhere.
func (c *console) progress(at time.Time, text string) {
	every := plainEvery
	if c.mode == Live {
		every = liveEvery
	}
	if at.Sub(c.shown) < every {
		return
	}
	c.shown = at
	if c.mode == Plain {
		c.line("  %s", text)
		return
	}
	if r := []rune(text); len(r) > c.width()-4 {
		text = string(r[:max(c.width()-4, 0)])
	}
	fmt.Fprintf(c.w, "\r\x1b[K  %s", text)
	c.live = true
}

// trainStep shows the first and last steps and about eight between for good, and every step in passing.
func (c *console) trainStep(e event.Event) {
	t := e.Train
	text := fmt.Sprintf("step %d/%d  loss %.4f  grad norm %.3f  lr %.2e  %.0f tok/s", t.Step, t.Steps, float64(t.Loss), float64(t.GradNorm), float64(t.LR), t.TokensPerSecond)
	if t.Skipped {
		text += "  skipped: the gradient overflowed"
	}
	if t.Step == 1 || t.Step == t.Steps || t.Skipped || t.Step*10/t.Steps > c.step*10/t.Steps {
		c.line("  %s", text)
		c.step, c.shown = t.Step, e.Time
		return
	}
	c.progress(e.Time, text+"  ETA "+duration(t.ETA))
}

// preview shows one batch with trained and masked tokens told apart, and the figures of all rows.
func (c *console) preview(p event.PreviewPart) {
	share := func(n, of int) string { return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(max(of, 1))) }
	c.line("  %d rows, %d tokens: %s trained, %s masked; %s of the rows truncated; padding to max_length would be %.1f %% of the tokens",
		p.Rows, p.Tokens, share(p.Trained, p.Tokens), share(p.Masked, p.Tokens), share(p.Truncated, p.Rows), 100*p.PaddingShare)
	switch {
	case p.EOSTargets == 0:
		c.line("  end-of-text is never a target: the model will not learn to stop")
	case p.EOSTargets < p.Rows:
		c.line("  end-of-text is a target in %d of %d rows", p.EOSTargets, p.Rows)
	default:
		c.line("  end-of-text is a target in every row")
	}
	var text strings.Builder
	for _, piece := range p.Pieces {
		shown := visible.Text(piece.Text)
		switch {
		case c.color && piece.Trained:
			text.WriteString(c.paint(green, shown))
		case c.color:
			text.WriteString(c.paint(dim, shown))
		case piece.Trained || strings.TrimSpace(piece.Text) == "":
			text.WriteString(shown)
		default:
			text.WriteString("‹" + shown + "›")
		}
	}
	legend := "one batch, ‹masked› tokens in brackets:"
	if c.color {
		legend = "one batch, " + c.paint(green, "trained") + " and " + c.paint(dim, "masked") + " tokens:"
	}
	c.line("  %s", legend)
	for _, l := range strings.Split(strings.TrimRight(text.String(), "\n"), "\n") {
		c.line("    %s", l)
	}
}

// results shows the table of the variants.
func (c *console) results(e event.Event) {
	var r eval.Results
	if err := json.Unmarshal(e.Results, &r); err != nil {
		c.line("  the results cannot be read: %v", err)
		return
	}
	c.line("\n%s", r.Table(c.width(), c.color))
}

// The colours of paint.
const (
	bold   = "1"
	dim    = "2"
	red    = "1;31"
	green  = "32"
	yellow = "33"
)

// paint colours text, each of its lines on its own.
func (c *console) paint(color, text string) string {
	if !c.color {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = "\x1b[" + color + "m" + l + "\x1b[0m"
		}
	}
	return strings.Join(lines, "\n")
}
