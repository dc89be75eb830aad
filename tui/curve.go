package tui

import (
	"math"
	"time"

	"quartet/event"
)

// curveLimit is how many points a curve keeps. A longer training is kept as ranges of neighbouring steps, so that the memory
// for it does not grow.
const curveLimit = 4096

// smoothing is over how many steps the average of the loss is taken.
const smoothing = 20

// quantity is one thing that is drawn over a training.
type quantity int

const (
	lossOf quantity = iota
	normOf
	rateOf
	quantities
)

// point is a range of steps: the least, the greatest and the last average of each quantity. Those without a finite value
// are NaN.
type point struct {
	step             int
	tokens           int64
	at               float32 // seconds since the training began
	low, high        [quantities]float32
	average          float32 // of the loss, after the range's last step
	skipped, strange bool    // a step was skipped; its loss was not finite
}

// curve is a training's steps, thinned to curveLimit ranges.
type curve struct {
	points  []point
	per     int // steps of a point
	count   int // steps of the last point
	steps   int // of the training
	began   time.Time
	seconds float64
	tokens  int64
	mean    float64
	weight  float64
	last    event.TrainPart
}

func newCurve() *curve { return &curve{per: 1} }

// add takes one step. A step that came before, or 1, begins a new training, but for those that a resumed one runs again.
func (c *curve) add(t event.TrainPart, at time.Time) {
	if len(c.points) > 0 && t.Step <= c.last.Step {
		if t.Step == 1 {
			*c = *newCurve()
		} else {
			c.forget(t.Step)
		}
	}
	switch {
	case at.IsZero():
		if t.TokensPerSecond > 0 {
			c.seconds += float64(t.Tokens) / t.TokensPerSecond
		}
	case c.began.IsZero():
		c.began = at.Add(-time.Duration(c.seconds * float64(time.Second)))
	default:
		c.seconds = at.Sub(c.began).Seconds()
	}
	c.tokens += int64(t.Tokens)
	c.steps, c.last = t.Steps, t
	const keep = 1 - 2.0/(smoothing+1)
	loss := float64(t.Loss)
	finite := !math.IsNaN(loss) && !math.IsInf(loss, 0)
	if finite {
		c.mean, c.weight = keep*c.mean+(1-keep)*loss, keep*c.weight+(1-keep)
	}
	if c.count == c.per || len(c.points) == 0 {
		if len(c.points) == curveLimit {
			c.halve()
		}
	}
	if c.count == c.per || len(c.points) == 0 {
		nan := float32(math.NaN())
		c.points = append(c.points, point{low: [quantities]float32{nan, nan, nan}, high: [quantities]float32{nan, nan, nan}})
		c.count = 0
	}
	p := &c.points[len(c.points)-1]
	c.count++
	p.step, p.tokens, p.at = t.Step, c.tokens, float32(c.seconds)
	p.skipped, p.strange = p.skipped || t.Skipped, p.strange || !finite
	p.average = float32(math.NaN())
	if c.weight > 0 {
		p.average = float32(c.mean / c.weight)
	}
	for q, v := range [quantities]event.Float{t.Loss, t.GradNorm, t.LR} {
		p.low[q], p.high[q] = least(p.low[q], float32(v)), greatest(p.high[q], float32(v))
	}
}

// forget drops the points from a step on.
func (c *curve) forget(step int) {
	n := len(c.points)
	for n > 0 && c.points[n-1].step >= step {
		n--
	}
	c.points, c.count = c.points[:n], c.per
	if n > 0 {
		c.tokens, c.seconds = c.points[n-1].tokens, float64(c.points[n-1].at)
		c.began = time.Time{}
	}
}

// halve makes one point of every two.
func (c *curve) halve() {
	for i := range len(c.points) / 2 {
		a, b := c.points[2*i], c.points[2*i+1]
		for q := range quantities {
			b.low[q], b.high[q] = least(a.low[q], b.low[q]), greatest(a.high[q], b.high[q])
		}
		b.skipped, b.strange = a.skipped || b.skipped, a.strange || b.strange
		c.points[i] = b
	}
	c.points = c.points[:len(c.points)/2]
	c.per *= 2
	c.count = c.per
}

func finite(v float32) bool { return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) }

// least is the lesser of two values, of which those that are not finite do not count.
func least(a, b float32) float32 {
	if !finite(b) || finite(a) && a < b {
		return a
	}
	return b
}

func greatest(a, b float32) float32 {
	if !finite(b) || finite(a) && a > b {
		return a
	}
	return b
}
