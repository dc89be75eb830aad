package eval

import (
	"strings"
	"unicode"
)

// RougeL is the F1 of the longest common subsequence of two texts' words (ROUGE-L, Lin 2004), 0 to 1, as the rouge_score
// package has it without stemming: lower-cased, and everything but letters and digits separates words. Letters and digits
// are Unicode's, not only a-z and 0-9, so that texts in every script count.
func RougeL(answer, reference string) float64 {
	a, r := words(answer), words(reference)
	common := float64(longestCommon(a, r))
	if common == 0 {
		return 0
	}
	precision, recall := common/float64(len(a)), common/float64(len(r))
	return 2 * precision * recall / (precision + recall)
}

// ExactMatch reports whether two texts are equal but for white space around them.
func ExactMatch(answer, reference string) bool {
	return strings.TrimSpace(answer) == strings.TrimSpace(reference)
}

func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// longestCommon is the length of the longest common subsequence, in memory of the shorter text's length.
func longestCommon(a, b []string) int {
	if len(a) < len(b) {
		a, b = b, a
	}
	best := make([]int, len(b)+1) // best[j]: of the words of a so far and b[:j]
	for _, word := range a {
		diagonal := 0
		for j, other := range b {
			above := best[j+1]
			if word == other {
				best[j+1] = diagonal + 1
			} else {
				best[j+1] = max(above, best[j])
			}
			diagonal = above
		}
	}
	return best[len(b)]
}
