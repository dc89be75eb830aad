// Package picture draws screens of text as SVG: one, or a film of several.
package picture

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"image/color"
	"maps"
	"slices"
	"strings"
	"time"

	uv "github.com/charmbracelet/ultraviolet"
)

// Frame is a screen, and the moment of a film from which on it is shown.
type Frame struct {
	At    time.Duration
	Cells uv.ScreenBuffer
}

// The size of a cell, the space around a screen, and the colours of the page.
const (
	cellWidth, cellHeight, margin = 8.4, 18.0, 8.0
	paper, ink                    = "#10151c", "#d6dbe3"
)

// Still draws one screen.
func Still(cells uv.ScreenBuffer) []byte { return Film([]Frame{{Cells: cells}}, 0) }

// Film draws frames one after another for so long in all, over and over. What neighbouring frames have in common is drawn
// once. Programs that don't move pictures show the last frame.
func Film(frames []Frame, length time.Duration) []byte {
	last := len(frames) - 1
	shown := map[string][]bool{} // by what is drawn, in which frames
	for i, f := range frames {
		for y := range f.Cells.Height() {
			for _, piece := range drawLine(f.Cells, y) {
				if shown[piece] == nil {
					shown[piece] = make([]bool, len(frames))
				}
				shown[piece][i] = true
			}
		}
	}
	groups := map[string][]string{} // by the frames that show them, as text of 0 and 1
	for piece, in := range shown {
		var when strings.Builder
		for _, yes := range in {
			fmt.Fprint(&when, map[bool]int{false: 0, true: 1}[yes])
		}
		groups[when.String()] = append(groups[when.String()], piece)
	}
	width, height := frames[0].Cells.Width(), frames[0].Cells.Height()
	w, h := float64(width)*cellWidth+2*margin, float64(height)*cellHeight+2*margin
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="14" fill="%s">`+"\n", w, h, ink)
	out.WriteString("<style>text{white-space:pre}.b{font-weight:bold}</style>\n")
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" rx="6" fill="%s"/>`+"\n", paper)
	for _, when := range slices.Sorted(maps.Keys(groups)) {
		always := !strings.Contains(when, "0")
		if !always {
			hidden := ""
			if when[last] == '0' {
				hidden = ` visibility="hidden"`
			}
			fmt.Fprintf(&out, "<g%s>", hidden)
			out.WriteString(animation(frames, when, length))
		}
		for _, piece := range slices.SortedFunc(slices.Values(groups[when]), backgroundsFirst) {
			out.WriteString(piece)
		}
		if !always {
			out.WriteString("</g>")
		}
		out.WriteString("\n")
	}
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func backgroundsFirst(a, b string) int {
	if x, y := strings.HasPrefix(a, "<rect"), strings.HasPrefix(b, "<rect"); x != y {
		return map[bool]int{true: -1, false: 1}[x]
	}
	return cmp.Compare(a, b)
}

var visibility = map[byte]string{'0': "hidden", '1': "visible"}

// animation shows what it stands in during the frames that when has a 1 for.
func animation(frames []Frame, when string, length time.Duration) string {
	values, times := []string{visibility[when[0]]}, []string{"0"} // the first frame is there from the beginning
	for i := 1; i < len(frames); i++ {
		if when[i] != when[i-1] {
			values = append(values, visibility[when[i]])
			times = append(times, strings.TrimPrefix(fmt.Sprintf("%.4f", frames[i].At.Seconds()/length.Seconds()), "0"))
		}
	}
	return fmt.Sprintf(`<animate attributeName="visibility" calcMode="discrete" dur="%.1fs" repeatCount="indefinite" values="%s" keyTimes="%s"/>`, length.Seconds(), strings.Join(values, ";"), strings.Join(times, ";"))
}

// drawLine draws a line. Each run of one style is placed by itself, so that a font whose characters are wider than they should
// be breaks nothing.
func drawLine(screen uv.ScreenBuffer, y int) (pieces []string) {
	for x := 0; x < screen.Width(); {
		first := screen.CellAt(x, y)
		text, from := "", x
		for x < screen.Width() {
			c := screen.CellAt(x, y)
			if c == nil || !c.Style.Equal(&first.Style) {
				break
			}
			text += c.Content
			x += max(c.Width, 1)
		}
		pieces = append(pieces, drawRun(text, first.Style, from, x, y)...)
	}
	return pieces
}

// drawRun draws cells of one style. Space within is left out where it is long.
func drawRun(text string, style uv.Style, from, to, y int) (pieces []string) {
	top := float64(y)*cellHeight + margin
	fill, back := style.Fg, style.Bg
	if style.Attrs&uv.AttrReverse != 0 {
		fill, back = back, fill
	}
	if back != nil {
		pieces = append(pieces, fmt.Sprintf(`<rect x="%.1f" y="%.1f" width="%.1f" height="%g" fill="%s"/>`, float64(from)*cellWidth+margin, top, float64(to-from)*cellWidth, cellHeight, hex(back)))
	}
	trimmed := strings.TrimLeft(text, " ")
	from += len(text) - len(trimmed)
	text = strings.TrimRight(trimmed, " ")
	to -= len(trimmed) - len(text)
	if text == "" {
		return pieces
	}
	look := ""
	if fill != nil {
		look = fmt.Sprintf(` fill="%s"`, hex(fill))
	}
	if style.Attrs&uv.AttrBold != 0 {
		look += ` class="b"`
	}
	return append(pieces, fmt.Sprintf(`<text x="%.1f" y="%.1f" textLength="%.1f"%s>%s</text>`, float64(from)*cellWidth+margin, top+13.5, float64(to-from)*cellWidth, look, html.EscapeString(text)))
}

func hex(c color.Color) string {
	r, g, b, _ := c.RGBA()
	return fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
}
