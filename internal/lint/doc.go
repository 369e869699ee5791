// Package lint holds the rules of the house as tests: who imports whom, one
// door to each outside library, comments, formatting, no init. It has no code
// of its own.
package lint
