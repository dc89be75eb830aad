package cpu

import (
	"math"

	"quartet/kernels"
)

const ignored = -100

// softmaxPart is how many exponentials are added in float32; the parts are added in float64.
const softmaxPart = 1024

// CrossEntropy sets losses (1,T) = -log softmax(logits)[label] and dlogits (T,V) = scale·(softmax - onehot).
func (b *Backend) CrossEntropy(losses, dlogits, logits, labels kernels.Tensor, scale float32) {
	T, V := logits.Rows, logits.Cols
	kernels.Want("CrossEntropy", "logits", logits, kernels.F32, T, V)
	kernels.Want("CrossEntropy", "losses", losses, kernels.F32, 1, T)
	kernels.Want("CrossEntropy", "labels", labels, kernels.I32, 1, T)
	var ds []float32
	if !dlogits.IsZero() {
		kernels.Want("CrossEntropy", "dlogits", dlogits, kernels.F32, T, V)
		ds = dlogits.F32s()
	}
	ls, xs, want := losses.F32s(), logits.F32s(), labels.I32s()
	b.pool.each(T, grain(2*V), func(w *worker, lo, hi int) {
		buffer := w.floats(0, V)
		for t := lo; t < hi; t++ {
			row, p := xs[t*V:(t+1)*V], buffer
			if ds != nil {
				p = ds[t*V : (t+1)*V]
			}
			label := int(want[t])
			if label == ignored {
				ls[t] = 0
				if ds != nil {
					clear(p)
				}
				continue
			}
			target, top := row[label], b.loops.top(row)
			var sum float64
			for from := 0; from < V; from += softmaxPart {
				to := min(V, from+softmaxPart)
				sum += float64(b.loops.expSum(p[from:to], row[from:to], top))
			}
			ls[t] = float32(math.Log(sum)) - (target - top)
			if ds != nil {
				b.loops.multiply(p, p, scale/float32(sum))
				p[label] -= scale
			}
		}
	})
}
