package train

import (
	"math/bits"

	"quartet/kernels"
)

// order says which rows each step trains on. Everything follows from the seed and the step's number.
type order struct {
	o     Options
	rows  []int // the rows that take part, as indexes into the data
	given []int // in place of the shuffle: epoch after epoch

	epoch    int // of shuffled
	shuffled []int
}

func newOrder(o Options, rows []int) *order {
	r := &order{o: o, rows: rows, epoch: -1}
	if o.Order != nil {
		takesPart := map[int]bool{}
		for _, row := range rows {
			takesPart[row] = true
		}
		r.given = []int{}
		for _, row := range o.Order {
			if takesPart[row] {
				r.given = append(r.given, row)
			}
		}
	}
	return r
}

// ofEpoch is the rows of an epoch, counted from 0, in their order.
func (r *order) ofEpoch(epoch int) []int {
	if r.given != nil {
		n := len(r.rows)
		return r.given[min(epoch*n, len(r.given)):min((epoch+1)*n, len(r.given))]
	}
	if r.epoch != epoch {
		r.epoch, r.shuffled = epoch, append(r.shuffled[:0], r.rows...)
		shuffle(r.shuffled, r.o.Seed, epoch)
	}
	return r.shuffled
}

// group is the rows of a step, counted from 0. The slice is valid until another epoch is asked for.
func (r *order) group(step int) []int {
	perEpoch := r.o.StepsPerEpoch(len(r.rows))
	rows, size := r.ofEpoch(step/perEpoch), r.o.BatchSize*r.o.Accumulation
	from := step % perEpoch * size
	return rows[min(from, len(rows)):min(from+size, len(rows))]
}

// shuffle is Fisher and Yates's, drawing from Philox under a key that no layer's dropout uses: draw i of an epoch depends
// on the seed, the epoch and i alone.
func shuffle(rows []int, seed uint64, epoch int) {
	key := [2]uint32{uint32(seed), uint32(seed>>32) ^ 0xffff<<16}
	for i := len(rows) - 1; i > 0; i-- {
		draw := kernels.Philox([4]uint32{uint32(i), uint32(epoch), 0, 0}, key)
		j, _ := bits.Mul64(uint64(draw[0])<<32|uint64(draw[1]), uint64(i+1))
		rows[i], rows[j] = rows[j], rows[i]
	}
}
