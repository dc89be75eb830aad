package doctor

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"quartet/safetensors"
)

// content is what a floating tensor's values are like.
type content struct {
	wrong int  // values that are NaN or infinite
	zero  bool // all values are zero
}

// look reads a tensor's values; ok is false for one that is not of a floating type.
func look(t safetensors.Tensor) (c content, ok bool) {
	c.zero = true
	switch t.DType {
	case safetensors.F16, safetensors.BF16:
		exponent := map[safetensors.DType]uint16{safetensors.F16: 0x7c00, safetensors.BF16: 0x7f80}[t.DType]
		for i := 0; i+2 <= len(t.Data); i += 2 {
			bits := binary.LittleEndian.Uint16(t.Data[i:])
			if bits&exponent == exponent {
				c.wrong++
			}
			c.zero = c.zero && bits&0x7fff == 0
		}
	case safetensors.F32:
		for i := 0; i+4 <= len(t.Data); i += 4 {
			bits := binary.LittleEndian.Uint32(t.Data[i:])
			if bits&0x7f800000 == 0x7f800000 {
				c.wrong++
			}
			c.zero = c.zero && bits&0x7fffffff == 0
		}
	case safetensors.F64:
		for i := 0; i+8 <= len(t.Data); i += 8 {
			v := math.Float64frombits(binary.LittleEndian.Uint64(t.Data[i:]))
			if math.IsNaN(v) || math.IsInf(v, 0) {
				c.wrong++
			}
			c.zero = c.zero && v == 0
		}
	default:
		return c, false
	}
	return c, len(t.Data) > 0
}

// values reads all values of a folder's tensors.
func (x *exam) values(ck *safetensors.Checkpoint) {
	var tensors []safetensors.Tensor
	for _, name := range ck.Names() {
		if t, err := ck.Get(name); err == nil {
			tensors = append(tensors, t)
		}
	}
	x.scan(tensors)
}

// scan reads all values of tensors and tells of those that are not finite and of matrices of zeros.
func (x *exam) scan(tensors []safetensors.Tensor) {
	contents := make([]content, len(tensors))
	var next atomic.Int64
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(tensors) && x.ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if c, ok := look(tensors[i]); ok {
					contents[i] = c
				}
			}
		})
	}
	group.Wait()
	x.finite(tensors, contents, nil)
	var zero []string
	for i, t := range tensors {
		if contents[i].zero && (len(t.Shape) == 2 && min(t.Shape[0], t.Shape[1]) > 1 || strings.HasSuffix(t.Name, "absmax")) {
			zero = append(zero, fmt.Sprintf("%.120q", t.Name))
		}
	}
	if len(zero) > 0 {
		x.fail("", nil, "all values are zero in %s, as in an unfinished download; download it again", some(zero))
	}
}

// finite tells of tensors with values that are not finite, which stop a library or none.
func (x *exam) finite(tensors []safetensors.Tensor, contents []content, stops []Library) {
	var wrong []string
	for i, t := range tensors {
		if n := contents[i].wrong; n > 0 {
			wrong = append(wrong, fmt.Sprintf("%.120q (%d of %d)", t.Name, n, len(t.Data)/t.DType.Size()))
		}
	}
	if len(wrong) > 0 {
		x.fail("", stops, "values are NaN or infinite in %s; download it again, or train again with a lower learning rate", some(wrong))
	}
}
