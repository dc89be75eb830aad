package tui

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"

	"quartet/event"
)

var update = flag.Bool("update", false, "write the golden frames anew")

// sizes are those of the golden frames.
var sizes = [][2]int{{120, 40}, {80, 24}, {60, 16}}

// scenes are moments of the workbench.
var scenes = []struct {
	name string
	play func(*bench)
}{
	{"start", func(b *bench) {}},
	{"training", func(b *bench) { b.happen(training(120)...) }},
	{"stage", func(b *bench) { b.happen(training(120)...); b.press("3") }},
	{"failed", func(b *bench) {
		b.happen(training(120)...)
		b.happen(event.Event{Time: start, Kind: event.StageFailed, Stage: "lora", Text: "train step 121: out of memory: 6.2 GB are needed and 5.1 are free; set training.batch_size = 1"},
			event.Event{Time: start, Kind: event.RunDone, Text: "train step 121: out of memory"})
		b.press("3")
	}},
	{"chat", func(b *bench) { b.happen(training(120)...); b.talk() }},
	{"diff", func(b *bench) { b.talk(); b.press("d", "right", "right", "z") }},
	{"results", func(b *bench) { b.happen(append(training(200), measured(b.t)...)...); b.press("e") }},
	{"log", func(b *bench) { b.happen(training(120)...); b.press("o") }},
	{"rerun", func(b *bench) {
		b.happen(append(append(training(200), measured(b.t)...), event.Event{Kind: event.RunDone, Time: start, Seconds: 40})...)
		b.press("3", "r")
	}},
	{"help", func(b *bench) { b.press("?") }},
	{"gone", func(b *bench) { b.happen(training(120)...); b.send(goneMsg{0, errors.New("connection reset by peer")}) }},
	{"welcome", func(b *bench) { b.m.worker, b.m.dialog = nil, &welcome{}; b.press("down") }},
}

func TestFrames(t *testing.T) {
	for _, s := range scenes {
		for _, size := range sizes {
			b := newBench(t, size[0], size[1])
			s.play(b)
			frame := b.m.View().Content
			checkFrame(t, frame, size[0], size[1])
			golden(t, fmt.Sprintf("%s-%dx%d.txt", s.name, size[0], size[1]), ansi.Strip(frame))
		}
	}
}

// TestColours holds the frames of each colour mode, with the escape character as ␛.
func TestColours(t *testing.T) {
	profiles := []struct {
		name    string
		profile colorprofile.Profile
		ascii   bool
	}{{"truecolor", colorprofile.TrueColor, false}, {"256", colorprofile.ANSI256, false}, {"16", colorprofile.ANSI, false}, {"nocolor", colorprofile.ASCII, false}, {"ascii", colorprofile.ASCII, true}}
	for _, p := range profiles {
		for _, dark := range []bool{true, false} {
			for _, size := range sizes {
				b := newBench(t, size[0], size[1])
				b.m.profile, b.m.dark, b.m.config.Workbench.ASCII = p.profile, dark, p.ascii
				b.m.restyle()
				b.happen(training(120)...)
				frame := b.m.View().Content
				checkFrame(t, frame, size[0], size[1])
				for _, r := range frame {
					if p.ascii && r > '~' {
						t.Fatalf("%q is not ASCII", r)
					}
				}
				if p.profile == colorprofile.ASCII && strings.Contains(frame, "[3") {
					t.Error("a colour in a frame without colours")
				}
				golden(t, fmt.Sprintf("colours/%s-%s-%dx%d.txt", p.name, map[bool]string{true: "dark", false: "light"}[dark], size[0], size[1]), strings.ReplaceAll(frame, "\x1b", "␛"))
			}
		}
	}
}

// golden holds a frame against its file.
func golden(t *testing.T, name, frame string) {
	t.Helper()
	lines := strings.Split(frame, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	frame = strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(frame), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != frame {
		t.Errorf("%s differs; look at it and run go test ./tui -run 'Frames|Colours' -update\n%s", name, ansi.Strip(strings.ReplaceAll(frame, "␛", "\x1b")))
	}
}

// checkFrame reports lines that are not exactly as wide as the screen by either way of measuring, and everything that a
// terminal would obey but colours.
func checkFrame(t *testing.T, frame string, w, h int) {
	t.Helper()
	lines := strings.Split(frame, "\n")
	if len(lines) != h {
		t.Fatalf("%d lines on a screen of %d", len(lines), h)
	}
	for i, l := range lines {
		text := ansi.Strip(l)
		if a, b := ansi.StringWidth(text), ansi.StringWidthWc(text); a != w || b != w {
			t.Fatalf("line %d takes %d or %d columns of %d: %q", i, a, b, w, text)
		}
		for rest := l; rest != ""; {
			seq, _, n, _ := ansi.DecodeSequence(rest, 0, nil)
			rest = rest[n:]
			if seq[0] == 0x1b && !(strings.HasPrefix(seq, "\x1b[") && strings.HasSuffix(seq, "m")) || seq[0] < ' ' && seq[0] != 0x1b {
				t.Fatalf("line %d holds %q", i, seq)
			}
		}
	}
}
