package tui

import (
	"math/rand/v2"
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"
	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/vt"
)

// TestTerminalShowsTheFrame plays sessions of random keys, events and sizes through the painter to a terminal, and holds what
// the terminal shows against each frame drawn whole, colours included.
func TestTerminalShowsTheFrame(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	keys := []string{"tab", "l", "t", "e", "o", "z", "3", "?", "esc", "down", "up", "pgdown", "home", "end", "d", "L", "x", "s", "a", "right"}
	for range 4 {
		w, h := 60+random.IntN(80), 16+random.IntN(30)
		b := newBench(t, w, h)
		b.talk()
		b.press("esc")
		terminal := vt.NewEmulator(w, h)
		p, err := newPainter(nil, terminal, []string{"TERM=xterm-256color", "COLORTERM=truecolor"})
		if err != nil {
			t.Fatal(err)
		}
		p.profile(b.m.profile)
		events := append(training(200), measured(t)...)
		for i := range 250 {
			switch n := random.IntN(8); {
			case n == 0 && random.IntN(8) == 0:
				w, h = 60+random.IntN(80), 16+random.IntN(30)
				terminal.Resize(w, h)
				b.send(tea.WindowSizeMsg{Width: w, Height: h})
			case n < 3:
				b.happen(events[i%len(events)])
			case n < 6:
				a := b.m.chat.exchange.Answers[random.IntN(4)]
				a.Text += " " + hostile[5+random.IntN(2)][:3*random.IntN(4)] + strings.Repeat("word ", random.IntN(3))
				b.m.fresh = false
			default:
				b.press(keys[random.IntN(len(keys))])
			}
			v := b.m.View()
			p.paint(v.Content, v.Cursor, w, h, false)
			want := uv.NewScreenBuffer(w, h)
			uv.NewStyledString(v.Content).Draw(want, want.Bounds())
			for y := range h {
				for x := range w {
					got, cell := terminal.CellAt(x, y), want.CellAt(x, y)
					if got.Content != cell.Content && strings.TrimSpace(got.Content+cell.Content) != "" || cell.Content != " " && !got.Style.Equal(&cell.Style) {
						t.Fatalf("frame %d of %d × %d: %q at column %d of line %d, not %q:\n%s", i, w, h, got.Content, x, y, cell.Content, terminal.String())
					}
				}
			}
		}
	}
}
