// Command gen writes the vector kernels of package cpu: AVX2 with FMA and F16C, AVX-512, or AMX. Lengths are multiples of eight elements
// unless a kernel says otherwise; strides are in bytes.
package main

import (
	"flag"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

func main() {
	wide := flag.Bool("512", false, "write the AVX-512 kernels")
	tiles := flag.Bool("amx", false, "write the kernels of AMX tiles")
	flag.Parse()
	ConstraintExpr("amd64")
	switch {
	case *tiles:
		amx()
	case *wide:
		avx512()
	default:
		avx2()
	}
	Generate()
}

func avx2() {
	gemm()
	dots()
	packRows(16)
	packColumns(16)
	converts()
	nf4()
	quantize()
	whole()
	widenRows()
	elementwise()
	norms()
	exponentials()
	attention()
	dropout()
	peak()
	pause()
}

// function begins a kernel. Its pointers don't escape.
func function(name, signature string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
}

// done ends a kernel.
func done() {
	VZEROUPPER()
	RET()
}

func pointer(name string) Register { return Load(Param(name), GP64()) }

// at is elements of 4 bytes from a pointer.
func at(base Register, floats int) Mem { return Mem{Base: base, Disp: 4 * floats} }

var constants = map[uint32]Mem{}

// constant is a float32 in memory.
func constant(v float32) Mem { return bits(math.Float32bits(v)) }

func bits(v uint32) Mem {
	m, ok := constants[v]
	if !ok {
		m = ConstData(name(v), U32(v))
		constants[v] = m
	}
	return m
}

func name(v uint32) string {
	const digits = "0123456789abcdef"
	s := []byte("const_00000000")
	for i := range 8 {
		s[len(s)-1-i] = digits[v>>(4*i)&15]
	}
	return string(s)
}

// spread is a vector of eight times a constant.
func spread(v float32) VecVirtual { return broadcast(constant(v)) }

func broadcast(m Op) VecVirtual {
	y := YMM()
	VBROADCASTSS(m, y)
	return y
}

// parameter is a vector of eight times a float32 parameter.
func parameter(name string) VecVirtual {
	addr, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return broadcast(addr.Addr)
}

func zero() VecVirtual {
	y := YMM()
	VXORPS(y, y, y)
	return y
}

// loop runs body count times, which may be none.
func loop(label string, count Register, body func()) {
	TESTQ(count, count)
	JZ(LabelRef(label + "_end"))
	Label(label)
	body()
	DECQ(count)
	JNZ(LabelRef(label))
	Label(label + "_end")
}

// vectors runs body for n elements, eight at a time: what it loads and stores goes through the span that it gets. The
// last n%8 elements come alone, with zeros behind them. pointers move along.
func vectors(label string, n Register, pointers []Register, body func(s span)) {
	whole := GP64()
	MOVQ(n, whole)
	SHRQ(U8(3), whole)
	loop(label, whole, func() {
		body(span{})
		for _, p := range pointers {
			ADDQ(U8(32), p)
		}
	})
	ANDQ(U8(7), n)
	JZ(LabelRef(label + "_done"))
	body(span{mask(n)})
	Label(label + "_done")
}

// span is eight elements, or fewer under a mask.
type span struct{ mask *VecVirtual }

func (s span) load(base Register) VecVirtual {
	y := YMM()
	if s.mask == nil {
		VMOVUPS(Mem{Base: base}, y)
	} else {
		VMASKMOVPS(Mem{Base: base}, *s.mask, y)
	}
	return y
}

func (s span) store(y VecVirtual, base Register) {
	if s.mask == nil {
		VMOVUPS(y, Mem{Base: base})
	} else {
		VMASKMOVPS(y, *s.mask, Mem{Base: base})
	}
}

// clear sets what is behind the span to 0.
func (s span) clear(y VecVirtual) {
	if s.mask != nil {
		VANDPS(*s.mask, y, y)
	}
}

var masks Mem

// mask covers the first n elements of a vector, n < 8.
func mask(n Register) *VecVirtual {
	if masks.Symbol.Name == "" {
		masks = GLOBL("masks", RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, I32(min(0, i/8-1)))
		}
	}
	from, base, y := GP64(), GP64(), YMM()
	MOVQ(U32(8), from)
	SUBQ(n, from)
	LEAQ(masks, base)
	VMOVUPS(Mem{Base: base, Index: from, Scale: 4}, y)
	return &y
}

// lanes adds up a vector's eight elements into the first of an XMM register.
func lanes(y VecVirtual) Register {
	x := XMM()
	VEXTRACTF128(U8(1), y, x)
	VADDPS(y.AsX(), x, x)
	VHADDPS(x, x, x)
	VHADDPS(x, x, x)
	return x
}
