package tokenizer

// pair is two neighbouring tokens.
type pair struct{ left, right int32 }

// merge is what a pair becomes, and how early: lower ranks merge first.
type merge struct{ rank, id int32 }

// candidate is a merge that may be possible at a place.
type candidate struct {
	order uint64 // rank and, among equals, place: rank<<32 | index of the left symbol
	pair  pair   // what stood there when the candidate was found; others have come since if it differs
}

// queue is a binary heap of candidates, the lowest order first.
type queue []candidate

func (q *queue) push(c candidate) {
	h := append(*q, c)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].order <= c.order {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = c
	*q = h
}

func (q *queue) pop() candidate {
	h := *q
	first, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	for i := 0; len(h) > 0; {
		child := 2*i + 1
		if child+1 < len(h) && h[child+1].order < h[child].order {
			child++
		}
		if child >= len(h) || last.order <= h[child].order {
			h[i] = last
			break
		}
		h[i] = h[child]
		i = child
	}
	*q = h
	return first
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
	waiting := make(queue, 0, len(symbols))
	offer := func(at int32) {
		next := symbols[at].next
		if int(next) >= len(symbols) {
			return
		}
		p := pair{symbols[at].id, symbols[next].id}
		if m, ok := t.merges[p]; ok {
			waiting.push(candidate{uint64(m.rank)<<32 | uint64(at), p})
		}
	}
	for i := range symbols {
		offer(int32(i))
	}
	for len(waiting) > 0 {
		c := waiting.pop()
		at := int32(uint32(c.order))
		s := &symbols[at]
		if s.id != c.pair.left || int(s.next) >= len(symbols) || symbols[s.next].id != c.pair.right {
			continue
		}
		right := &symbols[s.next]
		s.id, s.next = t.merges[c.pair].id, right.next
		right.id = -1
		if int(s.next) < len(symbols) {
			symbols[s.next].previous = at
		}
		offer(at)
		if s.previous >= 0 {
			offer(s.previous)
		}
	}
	from := len(ids)
	for i := int32(0); int(i) < len(symbols); i = symbols[i].next {
		ids = append(ids, symbols[i].id)
	}
	t.cache.put(piece, ids[from:])
	return ids
}
