package tui

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"quartet/event"
	"quartet/worker/client"
)

// hostile are texts that try to move the cursor, to change the terminal or to break columns.
var hostile = []string{
	"\x1b[2J\x1b[H\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x07",
	"\x1bP+q544e\x1b\\ \x9b31m \x1b[6n \x1b[?1049l \x1b(0",
	"\r\n\t\v\f\b\b\b\x00\x7f tail",
	"\u202eright to left\u202c \u2066isolate\u2069 \u200f",
	"zero\u200bwidth\u200d\u2060\ufeff join\u00adhyphen",
	"漢字とひらがな、カタカナ ｆｕｌｌ ﾊﾝｶｸ 한국어",
	"👩‍👩‍👧‍👦 👍🏽 🇫🇷🇩🇪 ❤️ ☺︎ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 😀",
	"Z̸̡̢̛̗̘̙̜̝̞̟̠̣̤̥̦̩̪̫̬̭̮̯̰̱̲̳̹̺̻̼͇͈͉͍͎̀́̂̃̄̅̆̇̈̉̊̋̌̍̎̏a̸l̸g̸o",
	"\u0301starts with a mark \u0e33 \u0903 क्षि ങ്ങ நி",
	"\xff\xfe\xc3 broken \xed\xa0\x80",
	"가 각 \u1100\u1161\u11a8 \u115f\u3164",
	strings.Repeat("x", 5000),
	strings.Repeat("漢", 500),
	"\U000e0001\U000e0041 tags \ufff9\ufffa\ufffb \u2028\u2029",
	"ﷺ ௌ ⸻ ﷽ 𒐫",
}

// TestHostileText puts each text wherever text from outside is shown, and holds each frame to its columns.
func TestHostileText(t *testing.T) {
	for _, text := range hostile {
		for _, size := range [][2]int{{120, 40}, {61, 17}, {33, 11}} {
			b := newBench(t, size[0], size[1])
			b.worker.snap.Info = client.Info{Name: text, Device: text, PID: 1}
			b.m.state.info = b.worker.snap.Info
			b.m.dir = text
			b.happen(training(20)...)
			b.happen(
				event.Event{Time: start, Kind: event.Plan, Plan: []event.PlanPart{{Stage: "base", State: "stale", Reason: text}}},
				event.Event{Time: start, Kind: event.Warning, Stage: text, Text: text},
				event.Event{Time: start, Kind: event.Progress, Stage: "lora", Progress: &event.ProgressPart{Label: text, Unit: text, Done: 1, Total: 2, Rate: 1}},
				event.Event{Time: start, Kind: event.Preview, Stage: "lora", Preview: &event.PreviewPart{Pieces: []event.Piece{{Text: text, Trained: true}}}},
				event.Event{Time: start, Kind: event.StageFailed, Stage: "quantize", Text: text},
				event.Event{Time: start, Kind: event.Results, Results: []byte(`{"variants":[{"name":"a\u001b[2Jb\u202e","missing":"\u0007"}]}`)},
			)
			b.m.state.stages["lora"].memory = event.Uses{text: 100, "weights": 5}
			b.m.memory.trouble = text
			e := newExchange(text)
			for _, a := range e.Answers {
				*a = answer{Variant: a.Variant, State: "done", Text: text + "\n" + text, Timing: &client.ChatTiming{Tokens: 1}}
			}
			e.Answers[1].State, e.Answers[1].Reason = "failed", text
			b.m.chat.exchange = e
			b.m.chat.input.insert(text)
			for _, keys := range [][]string{{"l"}, {"t"}, {"d"}, {"z"}, {"right"}, {"z"}, {"i"}, {"esc"}, {"e"}, {"o"}, {"/", "x", "esc"}, {"1"}, {"2"}, {"3"}, {"tab"}, {"tab"}, {"r"}, {"esc"}, {","}, {"esc"}} {
				b.press(keys...)
				checkFrame(t, b.m.View().Content, size[0], size[1])
			}
			b.m.dialog = &chatList{items: []exchange{e}}
			b.m.notice = text
			b.m.fresh = false
			checkFrame(t, b.m.View().Content, size[0], size[1])
			b.m.dialog = nil
			b.send(goneMsg{0, errors.New(text)})
			checkFrame(t, b.m.View().Content, size[0], size[1])
		}
	}
}

func TestCopiedTextReachesTheClipboardAlone(t *testing.T) {
	b := newBench(t, 80, 24)
	for _, c := range []struct{ variable, want string }{
		{"X=", "\x1b]52;c;aGk=\x07"},
		{"TMUX=/tmp/tmux-0/default,1,0", "\x1b]52;c;aGk=\x07\x1bPtmux;\x1b\x1b]52;c;aGk=\x07\x1b\\"},
		{"STY=1.pts", "\x1bP\x1b]52;c;aGk=\x07\x1b\\"},
	} {
		b.m.o.Environment = []string{"TERM=xterm", c.variable}
		if got := b.m.clipboard("hi"); got != c.want {
			t.Errorf("%s: %q, want %q", c.variable, got, c.want)
		}
	}
	b.m.o.Environment = []string{"STY=1"}
	for piece := range strings.SplitSeq(b.m.clipboard(strings.Repeat("long ", 500)), "\x1b\\") {
		if len(piece) > 80 {
			t.Errorf("a piece of %d bytes for screen", len(piece))
		}
	}
}

// TestGPUThatFails gives the workbench readers that are absent, fail and never answer; keys work all the while.
func TestGPUThatFails(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	for name, gpu := range map[string]func() Meter{
		"absent":      func() Meter { return nil },
		"failing":     func() Meter { return func() (Gauge, error) { return Gauge{}, errors.New("GPU is lost") } },
		"blocked":     func() Meter { return func() (Gauge, error) { <-never; return Gauge{}, nil } },
		"blocked too": func() Meter { <-never; return nil },
	} {
		b := newBench(t, 120, 40)
		samples := make(chan tea.Msg, 100)
		b.m.memory.watch(t.Context(), gpu, func(msg tea.Msg) { samples <- msg })
		if name == "failing" {
			for msg := range samples {
				if b.send(msg); b.m.memory.trouble != "" {
					break
				}
			}
			if frame := b.m.View().Content; !strings.Contains(frame, "GPU is lost") {
				t.Error("the pane does not say that the GPU failed")
			}
		}
		if strings.HasPrefix(name, "blocked") {
			for b.m.memory.asked.Load() == 0 {
				runtime.Gosched()
			}
			b.m.now = func() time.Time { return time.Unix(0, b.m.memory.asked.Load()).Add(3 * time.Second) }
			b.send(tickMsg{})
			if frame := b.m.View().Content; !strings.Contains(frame, "stale 3s") {
				t.Errorf("%s: the pane does not say that the GPU is stale:\n%s", name, frame)
			}
		}
		began := time.Now()
		b.press("e", "o", "l", "q")
		if took := time.Since(began); !b.quit || took > 100*time.Millisecond {
			t.Errorf("%s: quit %v after %v", name, b.quit, took)
		}
	}
}
