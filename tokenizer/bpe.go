package tokenizer

import "container/heap"

// pair is two neighbouring tokens.
type pair struct{ left, right int32 }

// merge is what a pair becomes, and how early: lower ranks merge first.
type merge struct{ rank, id int32 }

// candidate is a merge that may be possible at a place.
type candidate struct {
	rank int32
	at   int32 // index of the left symbol
	pair pair  // what stood there when the candidate was found; others have come since if it differs
}

// candidates is a heap: the lowest rank first, the leftmost of equals.
type candidates []candidate

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, j int) bool {
	return c[i].rank < c[j].rank || c[i].rank == c[j].rank && c[i].at < c[j].at
}
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(candidate)) }
func (c *candidates) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// symbol is a token in a doubly linked list; id -1 marks one that was merged into its left neighbour.
type symbol struct{ id, previous, next int32 }

// encodePiece appends the tokens of one piece of text (its bytes) to ids: byte tokens, merged pair by pair.
// (Sennrich et al. 2016, on bytes as in GPT-2.) It takes O(n log n) for n bytes.
func (t *Tokenizer) encodePiece(ids []int32, piece string) []int32 {
	if known, ok := t.cache.get(piece); ok {
		return append(ids, known...)
	}
	symbols := make([]symbol, 0, len(piece))
	for i := range len(piece) {
		id := t.byteIDs[piece[i]]
		if id < 0 {
			continue // the vocabulary has no token for this byte: it is left out, as without an unknown token
		}
		n := int32(len(symbols))
		symbols = append(symbols, symbol{id, n - 1, n + 1})
	}
	var queue candidates
	offer := func(at int32) {
		next := symbols[at].next
		if int(next) >= len(symbols) {
			return
		}
		p := pair{symbols[at].id, symbols[next].id}
		if m, ok := t.merges[p]; ok {
			queue = append(queue, candidate{m.rank, at, p})
		}
	}
	for i := range symbols {
		offer(int32(i))
	}
	heap.Init(&queue)
	for len(queue) > 0 {
		c := heap.Pop(&queue).(candidate)
		s := &symbols[c.at]
		if s.id != c.pair.left || int(s.next) >= len(symbols) || symbols[s.next].id != c.pair.right {
			continue
		}
		right := &symbols[s.next]
		s.id, s.next = t.merges[c.pair].id, right.next
		right.id = -1
		if int(s.next) < len(symbols) {
			symbols[s.next].previous = c.at
		}
		before := len(queue)
		offer(c.at)
		if s.previous >= 0 {
			offer(s.previous)
		}
		for i := before; i < len(queue); i++ {
			heap.Fix(&queue, i)
		}
	}
	from := len(ids)
	for i := int32(0); int(i) < len(symbols); i = symbols[i].next {
		ids = append(ids, symbols[i].id)
	}
	t.cache.put(piece, ids[from:])
	return ids
}
