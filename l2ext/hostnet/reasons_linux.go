package hostnet

import (
	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
)

// reason is why a rule of ours drops frames. In mode direct the kernel does all of what the
// gateway does in mode secure, and a rule says in its comment as what its frames count.
type reason byte

// The reasons. A rule without a comment is a limit.
const (
	overLimit reason = iota
	forbidden
	kept
	shut
	noListener
	probed // a loop probe, which has been heard: nothing is lost by it, and nobody is told
	numReasons
)

func (r reason) comment() string {
	return [numReasons]string{"", "forbidden", "policy", "shut", "no listener", "probe"}[r]
}

// mark is the comment as a rule has it; nil for none.
func (r reason) mark() []byte {
	if r == overLimit {
		return nil
	}
	return userdata.AppendString(nil, userdata.TypeComment, r.comment())
}

// reasonOf reads it.
func reasonOf(rule *nftables.Rule) reason {
	text, _ := userdata.GetString(rule.UserData, userdata.TypeComment)
	for r := range numReasons {
		if r.comment() == text {
			return r
		}
	}
	return overLimit
}

// dropped are frames, by reason.
type dropped [numReasons]uint64
