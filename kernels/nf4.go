package kernels

import (
	"math"
	"slices"
)

// NF4Values is the codebook of NF4: the value of each code, which a block's absmax multiplies.
var NF4Values = [16]float32{
	-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
	-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
	0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
	0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
}

// NF4Thresholds are the midpoints between neighbouring values, rounded to float32 from the decimals in bitsandbytes'
// source: a scaled weight's code is how many of them it exceeds, so that a tie takes the lower code.
var NF4Thresholds = [15]float32{
	-0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544, -0.23460740596055984,
	-0.13791173323988914, -0.045525018125772476, 0.03979014977812767, 0.1202552504837513, 0.2035212516784668,
	0.2920137718319893, 0.3893125355243683, 0.5016634166240692, 0.6427869200706482, 0.8614784181118011,
}

// NF4Code is the code of a weight divided by its block's absmax; that of a NaN is 0.
func NF4Code(x float32) byte {
	var code byte
	for _, t := range NF4Thresholds {
		if x > t {
			code++
		}
	}
	return code
}

// SignedMap and UnsignedMap are the values of the codes of bitsandbytes' dynamic 8-bit type, ascending
// (Dettmers 2015, "8-Bit Approximations for Parallelism in Deep Learning"). The signed one serves absmaxima of double
// quantisation and first moments, the unsigned one second moments.
var (
	SignedMap   = dynamicMap(true)
	UnsignedMap = dynamicMap(false)
)

var signedMidpoints, unsignedMidpoints = midpoints(&SignedMap), midpoints(&UnsignedMap)

// dynamicMap is, for each decade of 10⁻⁶ … 1, the midpoints of equal intervals of [0.1, 1], ever more of them, with 0
// and 1. The rounding follows torch.linspace in float32: one fused product-sum from the nearer end.
func dynamicMap(signed bool) (m [256]float32) {
	values := []float32{0, 1}
	tenth := float32(0.1)
	for i := range 7 {
		n := 1 << i
		if !signed {
			n *= 2
		}
		step := (1 - tenth) / float32(n)
		edge := func(j int) float32 {
			if j < (n+1)/2 {
				return float32(math.FMA(float64(step), float64(j), float64(tenth)))
			}
			return float32(math.FMA(-float64(step), float64(n-j), 1))
		}
		decade := float32(math.Pow10(i - 6))
		for j := range n {
			v := float32((edge(j)+edge(j+1))/2) * decade
			values = append(values, v)
			if signed {
				values = append(values, -v)
			}
		}
	}
	slices.Sort(values)
	copy(m[:], values)
	return m
}

// midpoints are the ordinals of what lies halfway between each code's value and the next one's; nothing lies above the last.
func midpoints(m *[256]float32) (mid [256]int32) {
	for i := range m[1:] {
		mid[i] = ordinal(float32(m[i]+m[i+1]) * 0.5)
	}
	mid[255] = math.MaxInt32
	return mid
}

// SignedCode is the code of SignedMap nearest to x; exactly between two it is the even one. That of a NaN is 0.
func SignedCode(x float32) byte { return nearest(&signedMidpoints, x) }

// UnsignedCode is the code of UnsignedMap nearest to x; exactly between two it is the even one. That of a NaN is 0.
func UnsignedCode(x float32) byte { return nearest(&unsignedMidpoints, x) }

func nearest(mid *[256]int32, x float32) byte {
	if x != x {
		return 0
	}
	code, at := 0, ordinal(x)
	for half := 128; half > 0; half /= 2 {
		// half is added where at is larger, without a branch, which nothing could predict.
		code += half & int((int64(mid[(code+half-1)&255])-int64(at))>>63)
	}
	if at == mid[code&255] && code&1 == 1 {
		code++
	}
	return byte(code)
}

// ordinal is a whole number for each float32, in the same order.
func ordinal(x float32) int32 {
	bits := int32(math.Float32bits(x + 0)) // -0 becomes 0
	return bits ^ bits>>31&math.MaxInt32
}

// NestedBlock is how many absmaxima share a scale in double quantisation, as bitsandbytes has it.
const NestedBlock = 256

// NewQuant is the Quant of an NF4 matrix of n weights, whose tensors are still to be allocated: Absmax and, with double
// quantisation, NestedAbsmax carry their types and shapes only.
func NewQuant(n, blockSize int, round DType, double bool) *Quant {
	blocks := (n + blockSize - 1) / blockSize
	q := &Quant{BlockSize: blockSize, Round: round, Absmax: Tensor{DType: F32, Rows: 1, Cols: blocks}}
	if double {
		q.Absmax.DType, q.NestedBlockSize = U8, NestedBlock
		q.NestedAbsmax = Tensor{DType: F32, Rows: 1, Cols: (blocks + NestedBlock - 1) / NestedBlock}
	}
	return q
}

// BlockAbsmax is the absmax of a block, of a Quant in host memory.
func (q *Quant) BlockAbsmax(block int) float32 {
	if q.NestedBlockSize == 0 {
		return q.Absmax.F32s()[block]
	}
	product := SignedMap[q.Absmax.Host[block]] * q.NestedAbsmax.F32s()[block/q.NestedBlockSize]
	return float32(product) + q.NestedOffset
}
