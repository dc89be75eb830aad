package tokenizer

import (
	"slices"
	"strings"
	"sync"
)

// The cache keeps the tokens of short pieces, which are most of any text.
const (
	cachedPieces    = 1 << 15
	cachedPieceSize = 48 // bytes
)

type pieceCache struct {
	mu    sync.RWMutex
	known map[string][]int32
}

func (c *pieceCache) get(piece string) ([]int32, bool) {
	if len(piece) > cachedPieceSize {
		return nil, false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids, ok := c.known[piece]
	return ids, ok
}

func (c *pieceCache) put(piece string, ids []int32) {
	if len(piece) > cachedPieceSize {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= cachedPieces {
		c.known = map[string][]int32{}
	}
	c.known[strings.Clone(piece)] = slices.Clone(ids)
}
