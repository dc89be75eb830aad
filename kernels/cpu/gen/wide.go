package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// avx512 writes the kernels of 512-bit vectors, where these gain most: products.
func avx512() {
	wideGemm()
	wideDots()
	wideNF4()
	wideWhole()
	packRows(widePanel)
	packColumns(widePanel)
	wideAttention()

	widePeak()
}

// widePanel and wideTile are a tile's columns and rows: 24 accumulators, two registers for b and some for a.
const (
	widePanel = 32
	wideTile  = 12
)

func wideZero() VecVirtual {
	z := ZMM()
	VPXORD(z, z, z)
	return z
}

func wideBroadcast(m Op) VecVirtual {
	z := ZMM()
	VBROADCASTSS(m, z)
	return z
}

func wideParameter(name string) VecVirtual {
	addr, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return wideBroadcast(addr.Addr)
}

// wideLanes adds up a vector's sixteen elements into the first of an XMM register, with instructions that reach all 32.
func wideLanes(z VecVirtual) Register {
	y, x, other := YMM(), XMM(), XMM()
	VEXTRACTF64X4(U8(1), z, y)
	VADDPS(z.AsY(), y, y)
	VEXTRACTF32X4(U8(1), y, x)
	VADDPS(y.AsX(), x, x)
	for _, order := range []int{0x4e, 0xb1} {
		VPERMILPS(U8(order), x, other)
		VADDPS(other, x, x)
	}
	return x
}

// wideGemm is gemm with c (rows,32) and b (k,32).
func wideGemm() {
	for rows := 1; rows <= wideTile; rows++ {
		function(fmt.Sprintf("wideGemm%d", rows), "func(k int, a *float32, aRow, aCol uintptr, b, c *float32, cRow uintptr, alpha float32)")
		k, aRow, aCol, b := pointer("k"), pointer("aRow"), pointer("aCol"), pointer("b")
		starts := []Register{pointer("a")} // of every third row
		for i := 3; i < rows; i += 3 {
			start := GP64()
			LEAQ(Mem{Base: starts[i/3-1], Index: aRow, Scale: 2}, start)
			ADDQ(aRow, start)
			starts = append(starts, start)
		}
		acc := make([][2]VecVirtual, rows)
		for r := range acc {
			acc[r] = [2]VecVirtual{wideZero(), wideZero()}
		}
		step := func(at int) {
			left, right := ZMM(), ZMM()
			VMOVUPS(Mem{Base: b, Disp: 128 * at}, left)
			VMOVUPS(Mem{Base: b, Disp: 128*at + 64}, right)
			for r := range rows {
				row := Mem{Base: starts[r/3]}
				if r%3 > 0 {
					row.Index, row.Scale = aRow, uint8(r%3)
				}
				x := wideBroadcast(row)
				VFMADD231PS(left, x, acc[r][0])
				VFMADD231PS(right, x, acc[r][1])
			}
			for _, start := range starts {
				ADDQ(aCol, start)
			}
		}
		fours := GP64()
		MOVQ(k, fours)
		SHRQ(U8(2), fours)
		loop("fours", fours, func() {
			for i := range 4 {
				step(i)
			}
			ADDQ(U32(512), b)
		})
		ANDQ(U8(3), k)
		loop("ones", k, func() {
			step(0)
			ADDQ(U32(128), b)
		})
		c, cRow := pointer("c"), pointer("cRow")
		alpha := wideParameter("alpha")
		for r := range rows {
			for half := range 2 {
				old := ZMM()
				VMOVUPS(at(c, 16*half), old)
				VFMADD231PS(alpha, acc[r][half], old)
				VMOVUPS(old, at(c, 16*half))
			}
			if r < rows-1 {
				ADDQ(cRow, c)
			}
		}
		done()
	}
}

// wideDots is dots for n a multiple of sixteen, four rows of weights at a time.
func wideDots() {
	load := map[string]func(m Mem, z VecVirtual){
		"F32": func(m Mem, z VecVirtual) { VMOVUPS(m, z) },
		"F16": func(m Mem, z VecVirtual) { VCVTPH2PS(m, z) },
	}
	for _, w := range []weightType{f32, f16} {
		for tokens := 1; tokens <= 6; tokens++ {
			for _, rows := range []int{1, 4} {
				wideDot(w, load[w.name], rows, tokens)
			}
		}
	}
}

func wideDot(w weightType, load func(m Mem, z VecVirtual), rows, tokens int) {
	function(fmt.Sprintf("wideDot%s%dx%d", w.name, rows, tokens), "func(n int, out *float32, w *"+w.element+", wRow uintptr, x *float32, xRow uintptr)")
	n, src, wRow, x, xRow := pointer("n"), pointer("w"), pointer("wRow"), pointer("x"), pointer("xRow")
	wTriple, xTriple, xLower := GP64(), GP64(), GP64()
	LEAQ(Mem{Base: wRow, Index: wRow, Scale: 2}, wTriple)
	LEAQ(Mem{Base: xRow, Index: xRow, Scale: 2}, xTriple)
	LEAQ(Mem{Base: x, Index: xRow, Scale: 4}, xLower)
	sets := 1 // accumulators of a sum
	if tokens <= 2 {
		sets = 2
	}
	ahead := asksAhead(w, rows, tokens, src, wRow)
	acc := make([]VecVirtual, sets*rows*tokens)
	for i := range acc {
		acc[i] = wideZero()
	}
	step := func(set int) {
		weights := make([]VecVirtual, rows)
		for r := range rows {
			m := strided(src, wRow, wTriple, r)
			m.Disp = set * 16 * w.size
			weights[r] = ZMM()
			load(m, weights[r])
		}
		for t := range tokens {
			m := strided(x, xRow, xTriple, t)
			if t >= 4 {
				m = strided(xLower, xRow, xTriple, t-4)
			}
			m.Disp = set * 64
			v := ZMM()
			VMOVUPS(m, v)
			for r := range rows {
				VFMADD231PS(v, weights[r], acc[(set*rows+r)*tokens+t])
			}
		}
	}
	advance := func(vectors int) {
		ADDQ(U32(vectors*16*w.size), src)
		ADDQ(U32(vectors*64), x)
		if tokens > 4 {
			ADDQ(U32(vectors*64), xLower)
		}
	}
	SHRQ(U8(4), n)
	if sets == 2 {
		pairs := GP64()
		MOVQ(n, pairs)
		SHRQ(U8(1), pairs)
		loop("pairs", pairs, func() {
			if ahead != nil {
				for r := range rows {
					PREFETCHT0(strided(ahead, wRow, wTriple, r))
				}
				ADDQ(U32(2*16*w.size), ahead)
			}
			step(0)
			step(1)
			advance(2)
		})
		ANDQ(U8(1), n)
	}
	loop("ones", n, func() {
		step(0)
		advance(1)
	})
	out := pointer("out")
	for i := range rows * tokens {
		if sets == 2 {
			VADDPS(acc[rows*tokens+i], acc[i], acc[i])
		}
		VMOVSS(wideLanes(acc[i]), at(out, i))
	}
	done()
}

// wideNF4 is dotNF4 with a block's sixteen scaled and rounded values in one register: VPERMPS reads four bits of a code,
// so a byte widened to 32 bits is the index of its lower half as it is.
func wideNF4() {
	table := codebook()
	for _, round := range []weightType{f32, f16, bf16} {
		for tokens := 1; tokens <= 4; tokens++ {
			function(fmt.Sprintf("wideDotNF4%sx%d", round.name, tokens), "func(n, first, size int, out *float32, codes *byte, absmax, x *float32, xRow uintptr)")
			x, xRow, triple := pointer("x"), pointer("xRow"), GP64()
			LEAQ(Mem{Base: xRow, Index: xRow, Scale: 2}, triple)
			values := ZMM()
			VMOVUPS(table, values)
			codes := pointer("codes")
			var acc [4][4]VecVirtual
			for t := range tokens {
				acc[t] = [4]VecVirtual{wideZero(), wideZero(), wideZero(), wideZero()}
			}
			var scaled VecVirtual
			blocks(func(absmax Register) {
				scaled = wideBroadcast(Mem{Base: absmax})
				VMULPS(values, scaled, scaled)
				wideRound(round, scaled)
			}, func(turn int) {
				odd, even := ZMM(), ZMM()
				VPMOVZXBD(Mem{Base: codes}, odd)
				VPSRLD(U8(4), odd, even)
				for half, index := range []VecVirtual{even, odd} {
					weights := ZMM()
					VPERMPS(scaled, index, weights)
					for t := range tokens {
						m := strided(x, xRow, triple, t)
						m.Disp = 64 * half
						VFMADD231PS(m, weights, acc[t][2*turn+half])
					}
				}
				ADDQ(U8(16), codes)
				ADDQ(U32(128), x)
			})
			out := pointer("out")
			for t := range tokens {
				VADDPS(acc[t][1], acc[t][0], acc[t][0])
				VADDPS(acc[t][3], acc[t][2], acc[t][2])
				VADDPS(acc[t][2], acc[t][0], acc[t][0])
				VMOVSS(wideLanes(acc[t][0]), at(out, t))
			}
			done()
		}
	}
}

// wideRound is roundTo.
func wideRound(w weightType, z VecVirtual) {
	switch w.name {
	case "F16":
		half := YMM()
		VCVTPS2PH(U8(0), z, half)
		VCVTPH2PS(half, z)
	case "BF16":
		odd := ZMM()
		VPSRLD(U8(16), z, odd)
		VPANDD(wideBroadcast(bits(1)), odd, odd)
		VPADDD(wideBroadcast(bits(0x7fff)), z, z)
		VPADDD(odd, z, z)
		VPANDD(wideBroadcast(bits(0xffff0000)), z, z)
	}
}

// widePeak is peak with 512-bit vectors.
func widePeak() {
	function("wideFMALoop", "func(n int)")
	n := pointer("n")
	var acc [12]VecVirtual
	for i := range acc {
		acc[i] = wideZero()
	}
	x, y := wideZero(), wideZero()
	loop("loop", n, func() {
		for i := range acc {
			VFMADD231PS(x, y, acc[i])
		}
	})
	done()
}
