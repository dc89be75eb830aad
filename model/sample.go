package model

import (
	"cmp"
	"math"
	"slices"

	"quartet/kernels"
)

// Sampling says how the next token is chosen from the logits. The order of its steps is that of transformers' generate:
// repetition penalty, temperature, top-k, top-p, softmax, draw.
type Sampling struct {
	Temperature       float64 // 0 chooses the most likely token
	TopK              int     // 0 for all
	TopP              float64 // 0 or 1 for all
	RepetitionPenalty float64 // 0 or 1 for none (Keskar et al. 2019)
	Seed              uint64
}

// choose picks a token. It overwrites logits. seen are the distinct tokens so far; draw names the draw, so that the same
// seed gives the same text.
func (s Sampling) choose(logits []float32, seen map[int32]struct{}, allowed func(int32) bool, draw [2]uint32) int32 {
	if p := float32(s.RepetitionPenalty); p != 0 && p != 1 {
		for id := range seen {
			if logits[id] < 0 {
				logits[id] *= p
			} else {
				logits[id] /= p
			}
		}
	}
	if s.Temperature == 0 {
		best := int32(-1)
		for id, l := range logits {
			if (best < 0 || l > logits[best]) && (allowed == nil || allowed(int32(id))) {
				best = int32(id)
			}
		}
		return max(best, 0)
	}
	type candidate struct {
		id    int32
		logit float64
	}
	var order []candidate
	for id, l := range logits {
		if allowed == nil || allowed(int32(id)) {
			order = append(order, candidate{int32(id), float64(l) / s.Temperature})
		}
	}
	slices.SortFunc(order, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.logit, a.logit), cmp.Compare(a.id, b.id))
	})
	if s.TopK > 0 && s.TopK < len(order) {
		order = order[:s.TopK]
	}
	weights := make([]float64, len(order))
	var total float64
	for i, c := range order {
		weights[i] = math.Exp(c.logit - order[0].logit)
		total += weights[i]
	}
	if s.TopP > 0 && s.TopP < 1 {
		var before float64
		for i, w := range weights {
			if i > 0 && before >= s.TopP*total {
				weights = weights[:i]
				break
			}
			before += w
		}
		total = 0
		for _, w := range weights {
			total += w
		}
	}
	words := kernels.Philox([4]uint32{draw[0], draw[1], 0, 0}, [2]uint32{uint32(s.Seed), uint32(s.Seed >> 32)})
	at := (float64(words[0])*(1<<32) + float64(words[1])) / (1 << 64) * total
	for i, w := range weights {
		if at -= w; at < 0 {
			return order[i].id
		}
	}
	return order[len(weights)-1].id
}
