package tui

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"image/color"

	"github.com/charmbracelet/colorprofile"
	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"

	"quartet/worker/client"
)

// Picture is the frame at the end of a recording as an SVG, of so many columns and lines.
func Picture(ctx context.Context, o Options, width, height int) ([]byte, error) {
	worker, err := o.Open(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	m := newModel(ctx, o)
	defer m.close()
	m.profile = colorprofile.TrueColor
	m.restyle()
	m.width, m.height, m.worker = width, height, worker
	if err := worker.Events(ctx, 0, func(e client.Numbered) error {
		m.events([]client.Numbered{e})
		return nil
	}); err != nil {
		return nil, err
	}
	return svg(m.View().Content, width, height), nil
}

// The size of a cell and the colours of an SVG's page.
const (
	cellWidth, cellHeight = 8.4, 18.0
	paper, ink            = "#10151c", "#d6dbe3"
)

// svg draws a frame with a fixed-width font. Each run of one style is placed by itself, so that a font whose characters are
// wider than they should be breaks nothing.
func svg(frame string, width, height int) []byte {
	screen := uv.NewScreenBuffer(width, height)
	uv.NewStyledString(frame).Draw(screen, screen.Bounds())
	var out bytes.Buffer
	w, h := float64(width)*cellWidth+16, float64(height)*cellHeight+16
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="14">`+"\n", w, h)
	fmt.Fprintf(&out, `<rect width="100%%" height="100%%" rx="6" fill="%s"/>`+"\n", paper)
	for y := range height {
		for x := 0; x < width; {
			first := screen.CellAt(x, y)
			text, from := "", x
			for x < width {
				c := screen.CellAt(x, y)
				if c == nil || !c.Style.Equal(&first.Style) {
					break
				}
				text += c.Content
				x += max(c.Width, 1)
			}
			drawRun(&out, text, first.Style, float64(from)*cellWidth+8, float64(y)*cellHeight+8, float64(x-from)*cellWidth)
		}
	}
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// drawRun draws cells of one style.
func drawRun(out *bytes.Buffer, text string, style uv.Style, x, y, width float64) {
	if style.Bg != nil {
		fmt.Fprintf(out, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, width, cellHeight, hex(style.Bg))
	}
	if ansi.StringWidth(text) == 0 || len(bytes.TrimSpace([]byte(text))) == 0 {
		return
	}
	look := fmt.Sprintf(` fill="%s"`, ink)
	if style.Fg != nil {
		look = fmt.Sprintf(` fill="%s"`, hex(style.Fg))
	}
	if style.Attrs&uv.AttrBold != 0 {
		look += ` font-weight="bold"`
	}
	fmt.Fprintf(out, `<text x="%.1f" y="%.1f" textLength="%.1f" lengthAdjust="spacingAndGlyphs" xml:space="preserve"%s>%s</text>`+"\n", x, y+13.5, width, look, html.EscapeString(text))
}

func hex(c color.Color) string {
	r, g, b, _ := c.RGBA()
	return fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
}
