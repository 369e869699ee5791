package conffile

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written like "512MiB". Units are kB, MB, GB, TB
// (powers of 1000) and KiB, MiB, GiB, TiB (of 1024); a number without a unit
// is bytes. Fractions are taken if they make whole bytes.
type Size int64

// Rate is bits per second, written like "200Mbit" or "1.5Gbit", with or
// without "/s". Units are bit, kbit, Mbit, Gbit, Tbit, and bytes as Size has
// them ("25MB/s"). A number needs its unit, but 0, which is no rate.
type Rate int64

// Duration is a time span, written like "10m" or "1h30m", as time.Duration
// has it. It is not negative.
type Duration time.Duration

// unit is a suffix and what it multiplies by.
type unit struct {
	name   string
	factor int64
}

// sizeUnits, largest first, such that the first that divides is the shortest.
func sizeUnits() []unit {
	return []unit{{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
		{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1}}
}

func bitUnits() []unit {
	return []unit{{"Tbit", 1e12}, {"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}
}

var (
	errUnit     = errors.New("unknown unit")
	errNoUnit   = errors.New("has no unit")
	errNumber   = errors.New("want a number and a unit")
	errRange    = errors.New("is too large")
	errFraction = errors.New("is not a whole number of the smallest unit")
	errNegative = errors.New("is negative")
)

// quantity parses a decimal number with a unit, exactly.
func quantity(text string, units []unit) (int64, error) {
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(text)
	}
	number, name := text[:end], strings.TrimPrefix(text[end:], " ")
	switch {
	case strings.HasPrefix(text, "-"):
		return 0, errNegative
	// 30 digits are more than any number in range needs; it bounds big.Rat.
	case number == "" || len(number) > 30 || number[0] == '.' || number[len(number)-1] == '.':
		return 0, errNumber
	}
	factor := int64(0)
	for _, u := range units {
		if u.name == name {
			factor = u.factor
		}
	}
	switch {
	case factor == 0 && name == "":
		return 0, errNoUnit
	case factor == 0:
		return 0, fmt.Errorf("%w %q", errUnit, name)
	}
	v, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, errNumber
	}
	v.Mul(v, new(big.Rat).SetInt64(factor))
	if !v.IsInt() {
		return 0, errFraction
	}
	if !v.Num().IsInt64() {
		return 0, errRange
	}
	return v.Num().Int64(), nil
}

// spell writes n in the largest unit that divides it.
func spell(n int64, units []unit) string {
	for _, u := range units {
		if n != 0 && n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.name
		}
	}
	return "0"
}

// ParseSize reads a Size.
func ParseSize(text string) (Size, error) {
	n, err := quantity(text, append(sizeUnits(), unit{"", 1}))
	if err != nil {
		return 0, fmt.Errorf("size %.40q: %w (write it like 512MiB)", text, err)
	}
	return Size(n), nil
}

// String gives the shortest spelling that is exact, "0" for 0.
func (s Size) String() string { return spell(int64(s), sizeUnits()) }

// Set takes what ParseSize takes. With String and Type it makes a flag value.
func (s *Size) Set(text string) (err error) {
	v, err := ParseSize(text)
	if err == nil {
		*s = v
	}
	return err
}

// Type is the flag value's type in usage texts.
func (s *Size) Type() string { return "size" }

// MarshalText gives String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is Set.
func (s *Size) UnmarshalText(b []byte) error { return s.Set(string(b)) }

// ParseRate reads a Rate.
func ParseRate(text string) (Rate, error) {
	n, err := quantity(strings.TrimSuffix(text, "/s"), bitUnits())
	if errors.Is(err, errUnit) || errors.Is(err, errNoUnit) {
		n, err = byteRate(text, err)
	}
	if err != nil {
		return 0, fmt.Errorf("rate %.40q: %w (write it like 200Mbit)", text, err)
	}
	return Rate(n), nil
}

// byteRate reads what has no unit of bits: bytes, or 0.
func byteRate(text string, noUnit error) (int64, error) {
	if text == "0" {
		return 0, nil
	}
	n, err := quantity(strings.TrimSuffix(text, "/s"), sizeUnits())
	switch {
	case errors.Is(err, errUnit) || errors.Is(err, errNoUnit):
		return 0, noUnit
	case err == nil && n > (1<<63-1)/8:
		return 0, errRange
	}
	return n * 8, err
}

// String gives the shortest spelling that is exact, "0" for 0.
func (r Rate) String() string { return spell(int64(r), bitUnits()) }

// BytesPerSecond is the rate as the shaper counts, rounded up: only 0 is 0.
func (r Rate) BytesPerSecond() int64 { return int64(r)/8 + (int64(r)%8+7)/8 }

// Set takes what ParseRate takes. With String and Type it makes a flag value.
func (r *Rate) Set(text string) error {
	v, err := ParseRate(text)
	if err == nil {
		*r = v
	}
	return err
}

// Type is the flag value's type in usage texts.
func (r *Rate) Type() string { return "rate" }

// MarshalText gives String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is Set.
func (r *Rate) UnmarshalText(b []byte) error { return r.Set(string(b)) }

// ParseDuration reads a Duration.
func ParseDuration(text string) (Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errNegative
	}
	if err != nil {
		msg := strings.TrimPrefix(err.Error(), "time: ")
		return 0, fmt.Errorf("duration %.40q: %.80s (write it like 10m or 1h30m)", text, msg)
	}
	return Duration(d), nil
}

// String gives time.Duration's spelling without zero parts: "10m", not "10m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Std is the time span as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Set takes what ParseDuration takes. With String and Type it makes a flag value.
func (d *Duration) Set(text string) error {
	v, err := ParseDuration(text)
	if err == nil {
		*d = v
	}
	return err
}

// Type is the flag value's type in usage texts.
func (d *Duration) Type() string { return "duration" }

// MarshalText gives String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is Set.
func (d *Duration) UnmarshalText(b []byte) error { return d.Set(string(b)) }
