package eval

import (
	"fmt"
	"math"
	"runtime"
	"sync"

	"quartet/model"
)

// GroupTokens is how many packed tokens of held-out rows run through the variants at a time; a longer row runs alone.
const GroupTokens = 1024

// groupBytes bounds the logits that are held of a group: base's and those of the variant at hand each.
const groupBytes = 64 << 20

// group is some held-out rows, packed, and the positions that predict their reference answers.
type group struct {
	batch     model.Batch
	positions []int32 // of the batch
	targets   []int32 // the token to predict there
	rows      []int   // the row it belongs to, as an index into evaluation.rows
}

// groups packs the rows in their order.
func (e *evaluation) groups() []group {
	var all []group
	var g group
	var ids [][]int32
	tokens := 0
	flush := func() {
		if len(ids) > 0 {
			g.batch = model.Pack(ids...)
			all, g, ids, tokens = append(all, g), group{}, nil, 0
		}
	}
	for i, r := range e.rows {
		if tokens+len(r.ids) > GroupTokens {
			flush()
		}
		for t := r.prompt; t < len(r.ids); t++ {
			g.positions, g.targets, g.rows = append(g.positions, int32(tokens+t-1)), append(g.targets, r.ids[t]), append(g.rows, i)
		}
		ids, tokens = append(ids, r.ids), tokens+len(r.ids)
	}
	flush()
	return all
}

// likelihood measures each variant's loss on the reference answers and its divergence from base there.
func (e *evaluation) likelihood() error {
	groups := e.groups()
	if len(groups) == 0 {
		e.warn("there are no held-out rows: the likelihood and the answers were not measured")
		return nil
	}
	longest := 0
	for _, g := range groups {
		longest = max(longest, len(g.batch.IDs))
	}
	passes := make([]*model.Pass, len(e.variants))
	defer func() {
		for _, p := range passes {
			if p != nil {
				p.Close()
			}
		}
	}()
	for i, v := range e.variants {
		var err error
		if passes[i], err = v.model.NewPass(longest, model.PassOptions{}); err != nil {
			return fmt.Errorf("variant %s: %w", v.Name, err)
		}
	}

	V := e.limits.VocabSize
	window := max(1, groupBytes/(4*V))
	reference, logits := []float32{}, []float32{} // (window, V): base's log-probabilities; the variant's logits
	rowNLL := make([][]float64, len(e.variants))
	totalNLL, totalKL := make([]float64, len(e.variants)), make([]float64, len(e.variants))
	for i := range rowNLL {
		rowNLL[i] = make([]float64, len(e.rows))
	}
	done := 0
	for _, g := range groups {
		for from := 0; from < len(g.positions); from += window {
			to := min(from+window, len(g.positions))
			for _, i := range e.baseFirst() {
				if err := e.ctx.Err(); err != nil {
					return err
				}
				logits = logits[:0]
				err := passes[i].Logits(g.batch, g.positions[from:to], func(_ int, l []float32) { logits = append(logits, l...) })
				if err != nil {
					return fmt.Errorf("variant %s: %w", e.variants[i].Name, err)
				}
				nll, kl := compareLogits(logits, g.targets[from:to], V, reference, e.base() >= 0 && i != e.base())
				for n := range nll {
					rowNLL[i][g.rows[from+n]] += nll[n]
					totalNLL[i] += nll[n]
					totalKL[i] += kl[n]
				}
				if i == e.base() {
					reference, logits = logits, reference // compareLogits made them log-probabilities
				}
				if to == len(g.positions) {
					done += len(g.batch.Offsets) - 1
					e.hooks.OnProgress(Progress{e.variants[i].Name, "likelihood", done, len(e.rows) * len(e.variants)})
				}
			}
		}
	}

	for i, r := range e.results {
		mean := totalNLL[i] / float64(e.out.HeldOut.ResponseTokens)
		r.NLLPerToken, r.Perplexity = Figure(mean), perplexity(mean)
		if e.base() >= 0 {
			r.KLToBase = Figure(totalKL[i] / float64(e.out.HeldOut.ResponseTokens))
		}
		for n, row := range e.rows {
			e.out.HeldOut.Examples[n].Variants[i] = Response{Variant: r.Name, NLLPerToken: Figure(rowNLL[i][n] / float64(row.targets())), RougeL: Unknown}
		}
	}
	if e.base() < 0 {
		e.warn("the divergence from base was not measured: there is no variant %q", Base)
	}
	return nil
}

// baseFirst is the variants' indexes with base's before the others, which are held against it.
func (e *evaluation) baseFirst() []int {
	base := e.base()
	var order []int
	if base >= 0 {
		order = append(order, base)
	}
	for i := range e.variants {
		if i != base {
			order = append(order, i)
		}
	}
	return order
}

// compareLogits turns logits (n,V) into log-probabilities in place, and returns of each row the loss of its target and,
// with divergence, KL(reference ‖ row) from the log-probabilities reference (n,V). The sums are in float64.
func compareLogits(logits []float32, targets []int32, V int, reference []float32, divergence bool) (nll, kl []float64) {
	nll, kl = make([]float64, len(targets)), make([]float64, len(targets))
	inParallel(len(targets), func(n int) {
		row := logits[n*V:][:V]
		logProbabilities(row)
		nll[n] = -float64(row[targets[n]])
		if !divergence {
			return
		}
		var sum float64
		for i, p := range reference[n*V:][:V] {
			if probability := math.Exp(float64(p)); probability != 0 {
				sum += probability * (float64(p) - float64(row[i]))
			}
		}
		kl[n] = max(sum, 0) // rounding may leave a hair less
	})
	return nll, kl
}

// logProbabilities sets row = log softmax(row).
func logProbabilities(row []float32) {
	largest := row[0]
	for _, l := range row {
		largest = max(largest, l)
	}
	var sum float64
	for _, l := range row {
		sum += math.Exp(float64(l) - float64(largest))
	}
	norm := float64(largest) + math.Log(sum)
	for i, l := range row {
		row[i] = float32(float64(l) - norm)
	}
}

// inParallel calls work for 0 … n-1 on all processors.
func inParallel(n int, work func(i int)) {
	var wait sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), n)
	for w := range workers {
		wait.Go(func() {
			for i := w; i < n; i += workers {
				work(i)
			}
		})
	}
	wait.Wait()
}
