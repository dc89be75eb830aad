package train

import (
	"math"

	"quartet/dataset"
	"quartet/model"
)

// pack is the rows that run through the model at once.
type pack struct {
	rows   []int
	tokens int
	share  float64 // what the loss of one of its tokens counts in the step's loss
}

// packs divides a group among as few packs as limit allows (0 for any number of tokens). Losses per micro-batch keep the
// micro-batches apart, since their tokens count differently.
func packs(data []dataset.Example, group []int, o Options, limit int) []pack {
	if limit == 0 {
		limit = math.MaxInt
	}
	size := len(group)
	if o.LossPer == "micro_batch" {
		size = o.BatchSize
	}
	units := (len(group) + size - 1) / size
	var out []pack
	for from := 0; from < len(group); from += size {
		unit := group[from:min(from+size, len(group))]
		trained := 0
		for _, row := range unit {
			trained += targets(data[row])
		}
		p := pack{share: 1 / (float64(trained) * float64(units))}
		for _, row := range unit {
			n := len(data[row].IDs)
			if len(p.rows) > 0 && n > limit-p.tokens {
				out = append(out, p)
				p.rows, p.tokens = nil, 0
			}
			p.rows, p.tokens = append(p.rows, row), p.tokens+n
		}
		out = append(out, p)
	}
	return out
}

// batch lays the pack's rows end to end.
func (p pack) batch(data []dataset.Example) model.Batch {
	b := model.Batch{Offsets: []int32{0}}
	for _, row := range p.rows {
		b.IDs = append(b.IDs, data[row].IDs...)
		b.Labels = append(b.Labels, data[row].Labels...)
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
		b.Rows = append(b.Rows, int32(row))
	}
	return b
}

// targets is how many tokens of a row are predicted and trained: a label counts from the second token on.
func targets(e dataset.Example) int {
	n := 0
	for i, label := range e.Labels {
		if i > 0 && label != model.Ignore {
			n++
		}
	}
	return n
}
