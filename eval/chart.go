package eval

import (
	"math"
	"strconv"
	"strings"
)

// A chart's curves are drawn in a box of this many units, which the page stretches to the place it has.
const (
	chartWidth  = 1000
	chartHeight = 300
)

// drawable is the largest magnitude that charts draw: differences of such values are still finite.
const drawable = 1e300

// chart is curves over the steps of a training, ready for the page: paths in the box, labels in percent of it.
type chart struct {
	Title   string
	Note    string
	Summary string // in words, for who does not see it
	Curves  []curve
	X, Y    []tick
	Rule    *tick // a level to compare the curves with
	Log     bool  // the vertical axis is logarithmic
	Left    int   // values that are not drawn, because they are no finite numbers
}

// curve is a path of SVG in the box and the class that styles it.
type curve struct{ Class, Path string }

// tick is a label of an axis, from the left or from the bottom.
type tick struct {
	Text string
	At   float64 // percent
}

// series is the values that become a curve, one a step.
type series struct {
	class  string
	values []Figure
}

// draw makes the chart of series that share their axes. With fromZero the vertical axis begins at zero; otherwise it is
// logarithmic where the values span more than two powers of ten. The rule is drawn where it is within the axis.
func (c *chart) draw(all []series, fromZero bool, rule Figure) {
	steps, lowest, highest := 0, math.Inf(1), math.Inf(-1)
	for _, s := range all {
		steps = max(steps, len(s.values))
		for _, v := range s.values {
			if drawn(v) {
				lowest, highest = min(lowest, float64(v)), max(highest, float64(v))
			}
		}
	}
	if lowest > highest {
		return
	}
	axis := newAxis(lowest, highest, fromZero)
	c.Y, c.Log = axis.ticks(), axis.log
	c.X = stepTicks(steps)
	for _, s := range all {
		c.Curves = append(c.Curves, curve{s.class, axis.path(s.values, steps)})
	}
	if at := axis.at(float64(rule)); drawn(rule) && at > 0 && at < 1 {
		c.Rule = &tick{plain(rule), 100 * at}
	}
}

func drawn(f Figure) bool { return f.Known() && math.Abs(float64(f)) <= drawable }

// axis is a vertical axis: its ends, in powers of ten where it is logarithmic.
type axis struct {
	low, high, step float64
	log             bool
}

// newAxis is an axis of a few round steps that holds lowest and highest.
func newAxis(lowest, highest float64, fromZero bool) axis {
	a := axis{log: !fromZero && lowest > 0 && highest/100 > lowest}
	if a.log {
		lowest, highest = math.Log10(lowest), math.Log10(highest)
	}
	if fromZero {
		lowest, highest = min(lowest, 0), max(highest, 0)
	}
	if most := max(math.Abs(lowest), math.Abs(highest)); highest-lowest <= 1e-6*most || most < 1e-290 {
		lowest, highest = lowest-max(most/2, 1e-290), highest+max(most/2, 1e-290)
	}
	a.step = roundStep((highest - lowest) / 4)
	if a.log {
		a.step = max(1, math.Round(a.step))
	}
	a.low, a.high = math.Floor(lowest/a.step)*a.step, math.Ceil(highest/a.step)*a.step
	return a
}

// roundStep is the least of 1, 2, 2.5, 5 and 10 times a power of ten that is v or more.
func roundStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, times := range []float64{1, 2, 2.5, 5} {
		if times*power >= v {
			return times * power
		}
	}
	return 10 * power
}

// at is the place of a value on the axis, from 0 to 1.
func (a axis) at(v float64) float64 {
	if a.log {
		v = math.Log10(v)
	}
	return (v - a.low) / (a.high - a.low)
}

func (a axis) ticks() (ticks []tick) {
	for i := range int(math.Round((a.high-a.low)/a.step)) + 1 {
		v := a.low + float64(i)*a.step
		if math.Abs(v) < a.step/1e6 {
			v = 0
		}
		text := strconv.FormatFloat(v, 'g', 4, 64)
		if a.log {
			text = strconv.FormatFloat(math.Pow(10, v), 'g', 4, 64)
		}
		ticks = append(ticks, tick{text, 100 * (v - a.low) / (a.high - a.low)})
	}
	return ticks
}

// stepTicks are round steps among the first n; the first and the last are always there.
func stepTicks(n int) []tick {
	if n < 2 {
		return []tick{{"1", 50}}
	}
	ticks := []tick{{"1", 0}}
	step := max(1, int(roundStep(float64(n)/5)))
	for i := step; i < n; i += step {
		if at := 100 * float64(i-1) / float64(n-1); at > 8 && at < 88 {
			ticks = append(ticks, tick{strconv.Itoa(i), at})
		}
	}
	return append(ticks, tick{strconv.Itoa(n), 100})
}

// path draws values over steps. It breaks where values are not drawn.
func (a axis) path(values []Figure, steps int) string {
	var out strings.Builder
	open := false
	for _, i := range thin(values) {
		if !drawn(values[i]) {
			open = false
			continue
		}
		x, y := float64(chartWidth)/2, chartHeight*(1-a.at(float64(values[i])))
		if steps > 1 {
			x = chartWidth * float64(i) / float64(steps-1)
		}
		command := "L"
		if !open {
			command = "M"
		}
		at := strconv.FormatFloat(x, 'f', 1, 64) + " " + strconv.FormatFloat(y, 'f', 1, 64)
		out.WriteString(command + at)
		if !open && (i+1 == len(values) || !drawn(values[i+1])) {
			out.WriteString("h0") // a dot
		}
		open = true
	}
	return out.String()
}

// thin is the indices of the values that a curve needs: all where they are few, else the lowest, the highest and one that
// is not drawn of each of as many parts as the box has room for.
func thin(values []Figure) (kept []int) {
	const parts = chartWidth / 2
	if len(values) <= 2*parts {
		for i := range values {
			kept = append(kept, i)
		}
		return kept
	}
	for part := range parts {
		from, to := part*len(values)/parts, (part+1)*len(values)/parts
		lowest, highest, gap := -1, -1, -1
		for i := from; i < to; i++ {
			switch v := values[i]; {
			case !drawn(v):
				gap = i
			case lowest < 0:
				lowest, highest = i, i
			case v < values[lowest]:
				lowest = i
			case v > values[highest]:
				highest = i
			}
		}
		for i := from; i < to; i++ {
			if i == lowest || i == highest || i == gap {
				kept = append(kept, i)
			}
		}
	}
	return kept
}

// smoothing is over how many steps the curve of n steps is smoothed.
func smoothing(n int) int { return max(5, n/20) }

// smooth is the exponential moving average over smoothing(len(values)) steps, corrected for its start. What is not a
// finite number has no part in it and stays unknown.
func smooth(values []Figure) []Figure {
	keep := 1 - 2/float64(smoothing(len(values))+1)
	mean, weight := 0.0, 0.0
	out := make([]Figure, len(values))
	for i, v := range values {
		if !drawn(v) {
			out[i] = Unknown
			continue
		}
		mean, weight = keep*mean+(1-keep)*float64(v), keep*weight+(1-keep)
		out[i] = Figure(mean / weight)
	}
	return out
}

// ends are the first and the last known of values.
func ends(values []Figure) (first, last Figure) {
	first, last = Unknown, Unknown
	for _, v := range values {
		if v.Known() {
			if !first.Known() {
				first = v
			}
			last = v
		}
	}
	return first, last
}

// unfinite counts the values that are not drawn.
func unfinite(values []Figure) (n int) {
	for _, v := range values {
		if !drawn(v) {
			n++
		}
	}
	return n
}
