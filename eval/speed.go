package eval

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"quartet/model"
)

// The speed of a variant is the median over speedRuns runs, or over fewer, but three at least, once speedTime is over; a
// model that takes slowTime for one run is not run again.
const (
	speedRuns   = 7
	speedTime   = 2 * time.Second
	slowTime    = 8 * time.Second
	speedTokens = 33 // generated in a run
	warmTokens  = 2  // generated before the first run
)

// speed measures the time to the first token and the rates of prefill and decoding, one sequence at a time, on a warm
// model. Every variant continues the same prompt, the held-out one of median length, by the same number of tokens, and
// the variants take turns, so that what else the machine does weighs on all alike. Runs during which others had the device
// count only where too few remain without them, which the variant's result then says.
func (e *evaluation) speed() error {
	if e.options.SkipSpeed {
		return nil
	}
	prompt := e.typicalPrompt()
	tokens := min(speedTokens, e.limits.MaxPositions-len(prompt))
	if prompt == nil || tokens < 2 {
		e.warn("the speed was not measured: there is no held-out row and no test prompt to measure it with")
		return nil
	}
	first, decode := make([]runTimes, len(e.variants)), make([]runTimes, len(e.variants))
	var spent time.Duration
	for run := range speedRuns + 1 { // the first one warms up
		if all := time.Duration(len(e.variants)); run > 3 && spent > speedTime*all || run > 1 && spent > slowTime*all {
			break
		}
		generated := tokens
		if run == 0 {
			generated = min(tokens, warmTokens)
		}
		for i, v := range e.variants {
			others := e.hooks.Others()
			g, err := v.model.Generate(e.ctx, [][]int32{prompt}, model.GenerateOptions{MaxNew: generated, Batch: 1, Allowed: e.data.Tokenizer.Has})
			if err != nil {
				return fmt.Errorf("variant %s: %w", v.Name, err)
			}
			if run > 0 {
				alone := others == e.hooks.Others()
				first[i].add(g[0].First, alone)
				decode[i].add(g[0].Decode, alone)
				spent += g[0].First + g[0].Decode
			}
			e.hooks.OnProgress(Progress{v.Name, "speed", run*len(e.variants) + i + 1, (speedRuns + 1) * len(e.variants)})
		}
	}
	for i, r := range e.results {
		ttft, shared := first[i].typical()
		decoding, _ := decode[i].typical()
		r.SharedDevice = shared
		r.TTFTSeconds = Figure(ttft)
		r.PrefillTokensPerSecond = rate(len(prompt), ttft)
		r.DecodeTokensPerSecond = rate(tokens-1, decoding)
	}
	return nil
}

// runTimes are the seconds of one thing in all runs, and in those without others.
type runTimes struct{ all, alone []float64 }

func (t *runTimes) add(d time.Duration, alone bool) {
	t.all = append(t.all, d.Seconds())
	if alone {
		t.alone = append(t.alone, d.Seconds())
	}
}

// fewestRuns is how many undisturbed runs are enough.
const fewestRuns = 3

// typical is the median, and whether it is one of runs that others disturbed.
func (t *runTimes) typical() (seconds float64, shared bool) {
	if len(t.alone) >= min(fewestRuns, len(t.all)) {
		return median(t.alone), false
	}
	return median(t.all), true
}

// typicalPrompt is the held-out prompt of median length, or the first test prompt, nil for none.
func (e *evaluation) typicalPrompt() []int32 {
	if len(e.rows) > 0 {
		byLength := slices.Clone(e.rows)
		slices.SortStableFunc(byLength, func(a, b row) int { return cmp.Compare(a.prompt, b.prompt) })
		r := byLength[len(byLength)/2]
		return r.asked
	}
	if len(e.asked) > 0 {
		return e.asked[0]
	}
	return nil
}

// rate is tokens a second, unknown where there was nothing to measure.
func rate(tokens int, seconds float64) Figure {
	if tokens <= 0 || seconds <= 0 {
		return Unknown
	}
	return Figure(float64(tokens) / seconds)
}

// median is the middle value, or the mean of the two middle ones.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
