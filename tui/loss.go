package tui

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// lossView is how the chart is drawn.
type lossView struct {
	linear bool
	axis   axis
	series quantity
}

// axis is what a chart's x stands for.
type axis int

const (
	bySteps axis = iota
	byTokens
	byTime
	axes
)

func (v *lossView) nextAxis()   { v.axis = (v.axis + 1) % axes }
func (v *lossView) nextSeries() { v.series = (v.series + 1) % quantities }

func (v *lossView) title(m *model) string {
	text := [...]string{"loss", "gradient norm", "learning rate"}[v.series] + " by " + [...]string{"steps", "tokens", "time"}[v.axis]
	if c := m.state.curve; len(c.points) > 0 {
		switch p := c.last; v.series {
		case lossOf:
			text = fmt.Sprintf("step %d/%d · loss %.4f, average %s · %s", p.Step, p.Steps, float64(p.Loss), digits(c.mean/c.weight), text)
		case normOf:
			text = fmt.Sprintf("step %d/%d · norm %.3f · %s", p.Step, p.Steps, float64(p.GradNorm), text)
		case rateOf:
			text = fmt.Sprintf("step %d/%d · rate %.2e · %s", p.Step, p.Steps, float64(p.LR), text)
		}
	}
	if !v.linear {
		text += ", log"
	}
	return text
}

func (p point) x(a axis) float64 {
	switch a {
	case byTokens:
		return float64(p.tokens)
	case byTime:
		return float64(p.at)
	}
	return float64(p.step)
}

// scale maps values to rows of dots, linearly or by logarithms.
type scale struct {
	low, high float64
	log       bool
}

// newScale holds all finite values of a series, widened to round ends so that it changes seldom.
func (c *curve) newScale(q quantity, log bool) (s scale, ok bool) {
	s = scale{math.Inf(1), math.Inf(-1), log}
	for _, p := range c.points {
		for _, v := range []float32{p.low[q], p.high[q]} {
			if finite(v) && (!log || v > 0) {
				s.low, s.high = min(s.low, float64(v)), max(s.high, float64(v))
			}
		}
	}
	if s.low > s.high {
		return s, false
	}
	if log {
		s.low, s.high = math.Floor(math.Log10(s.low)*10)/10, math.Ceil(math.Log10(s.high)*10)/10
	} else {
		step := math.Pow(10, math.Floor(math.Log10(max(s.high-s.low, math.Abs(s.high)/10, 1e-12)))) / 2
		s.low, s.high = math.Floor(s.low/step)*step, math.Ceil(s.high/step)*step
	}
	if s.high <= s.low {
		s.high = s.low + 1
	}
	return s, true
}

func (s scale) at(v float64) float64 {
	if s.log {
		v = math.Log10(v)
	}
	return (v - s.low) / (s.high - s.low)
}

func (s scale) label(part float64) string {
	v := s.low + part*(s.high-s.low)
	if s.log {
		v = math.Pow(10, v)
	}
	if v != 0 && math.Abs(v) < 0.01 {
		return fmt.Sprintf("%.0e", v)
	}
	return digits(v)
}

// lines draw the chart: the raw values dimmed, their average over them, steps that were skipped or not finite marked below.
func (v *lossView) lines(m *model, w, h int) []string {
	t, c := m.theme, m.state.curve
	if len(c.points) == 0 {
		return m.advice(w, fmt.Sprintf("no training yet; press %s and %s to train the adapter, or %s to run what is stale", m.keyOf("stage_lora"), m.keyOf("run"), m.keyOf("run_all")))
	}
	const left = 8
	height, width := max(h-2, 1), max(w-left-1, 1)
	s, ok := c.newScale(v.series, !v.linear)
	if !ok {
		s, ok = c.newScale(v.series, false)
	}
	if !ok {
		return []string{t.line(w).add(bad, " no step had a finite value").String()}
	}
	end := v.end(c)
	raw, mean := newDots(width, height), newDots(width, height)
	marks := make([]role, width)
	var before [2]int
	for i, p := range c.points {
		x := int(p.x(v.axis) / end * float64(2*width-1))
		x = max(0, min(x, 2*width-1))
		if finite(p.low[v.series]) && (!s.log || p.low[v.series] > 0) {
			raw.column(x, s.at(float64(p.low[v.series])), s.at(float64(p.high[v.series])))
		}
		if p.skipped && marks[x/2] != bad {
			marks[x/2] = warn
		}
		if p.strange && v.series == lossOf {
			marks[x/2] = bad
		}
		if v.series == lossOf && finite(p.average) && (!s.log || p.average > 0) {
			y := mean.row(s.at(float64(p.average)))
			if i > 0 && before[0] >= 0 {
				mean.stroke(before[0], before[1], x, y)
			}
			before = [2]int{x, y}
		}
	}
	lines := make([]string, 0, h)
	for y := range height {
		l := t.line(w)
		if y%max(height/4, 2) == 0 && y < height-2 || y == height-1 {
			label := s.label(1 - (float64(y)+0.5)/float64(height))
			l.to(left-1-columns(label)).add(dim, label)
		}
		l.to(left-1).add(rule, t.glyph.bar)
		runs(width, func(x int) (role, string) {
			if cell := mean.cell(t, x, y); cell != "" {
				return accent, cell
			}
			if cell := raw.cell(t, x, y); cell != "" {
				if v.series == lossOf {
					return rule, cell
				}
				return accent, cell
			}
			return plain, " "
		}, func(r role, text string) { l.add(r, text) })
		lines = append(lines, l.String())
	}
	foot := t.line(w).to(left - 1)
	runs(width+1, func(x int) (role, string) {
		switch {
		case x > 0 && marks[x-1] == bad:
			return bad, t.glyph.cross
		case x > 0 && marks[x-1] == warn:
			return warn, "!"
		}
		return rule, t.glyph.rule
	}, func(r role, text string) { foot.add(r, text) })
	lines = append(lines, foot.String())
	ends := t.line(w).to(left).add(dim, "0").add(dim, v.legend(c))
	return append(lines, ends.right(dim, v.xLabel(end)+" ").String())
}

// end is the x of the chart's right edge: the last step where it is known, so that the curve does not move while it grows.
func (v *lossView) end(c *curve) float64 {
	last := c.points[len(c.points)-1]
	end := last.x(v.axis)
	if c.steps > last.step && last.step > 0 {
		end *= float64(c.steps) / float64(last.step)
	}
	if v.axis != bySteps && end > 0 { // an estimate; in coarse steps, so that the curve moves seldom
		unit := math.Pow(2, math.Floor(math.Log2(end))) / 8
		end = math.Ceil(end/unit) * unit
	}
	return max(end, 1e-9)
}

func (v *lossView) xLabel(end float64) string {
	switch v.axis {
	case byTokens:
		return digits(end) + " tokens"
	case byTime:
		return seconds(end)
	}
	return fmt.Sprintf("step %.0f", end)
}

func (v *lossView) legend(c *curve) string {
	skipped := slices.ContainsFunc(c.points, func(p point) bool { return p.skipped })
	strange := slices.ContainsFunc(c.points, func(p point) bool { return p.strange })
	text := ""
	if skipped {
		text += "  ! skipped step"
	}
	if strange {
		text += "  ✗ loss not finite"
	}
	return text
}

// runs gives neighbouring cells of one role to put as one piece.
func runs(n int, cell func(x int) (role, string), put func(role, string)) {
	var text strings.Builder
	last := plain
	for x := range n {
		r, s := cell(x)
		if r != last && text.Len() > 0 {
			put(last, text.String())
			text.Reset()
		}
		last = r
		text.WriteString(s)
	}
	put(last, text.String())
}

// dots is a picture of 2 × 4 dots a cell, as Braille characters have them.
type dots struct {
	width, height int
	cells         []byte
}

func newDots(width, height int) *dots { return &dots{width, height, make([]byte, width*height)} }

// bits are the dots of a Braille character, by row and column.
var bits = [4][2]byte{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

func (d *dots) set(x, y int) {
	if x >= 0 && y >= 0 && x < 2*d.width && y < 4*d.height {
		d.cells[y/4*d.width+x/2] |= bits[y%4][x%2]
	}
}

// row is the row of dots of a part of the height, from 0 at the bottom to 1.
func (d *dots) row(part float64) int {
	return max(0, min(int((1-part)*float64(4*d.height-1)+0.5), 4*d.height-1))
}

func (d *dots) column(x int, low, high float64) {
	for y := d.row(high); y <= d.row(low); y++ {
		d.set(x, y)
	}
}

// stroke draws a line between two dots.
func (d *dots) stroke(x0, y0, x1, y1 int) {
	n := max(x1-x0, y1-y0, y0-y1, 1)
	for i := range n + 1 {
		d.set(x0+(x1-x0)*i/n, y0+(y1-y0)*i/n)
	}
}

// cell is the character of a cell, "" for an empty one.
func (d *dots) cell(t *theme, x, y int) string {
	b := d.cells[y*d.width+x]
	switch {
	case b == 0:
		return ""
	case !t.ascii:
		return string(rune(0x2800 + int(b)))
	case b&0x1b == 0:
		return "."
	case b&0xe4 == 0:
		return "'"
	}
	return ":"
}

// spark is the average of the loss as one line of so many columns, over the steps so far.
func (c *curve) spark(t *theme, width int) string {
	n := len(c.points)
	if n == 0 || width < 1 {
		return ""
	}
	width = min(width, n)
	low, high := math.Inf(1), math.Inf(-1)
	values := make([]float64, width)
	for i := range values {
		v := float64(c.points[(i+1)*n/width-1].average)
		if values[i] = v; !math.IsNaN(v) {
			low, high = min(low, v), max(high, v)
		}
	}
	var out strings.Builder
	levels := t.glyph.spark
	for _, v := range values {
		if math.IsNaN(v) || high <= low {
			out.WriteString(levels[0])
			continue
		}
		out.WriteString(levels[int((v-low)/(high-low)*float64(len(levels)-1)+0.5)])
	}
	return out.String()
}
