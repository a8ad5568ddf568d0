package config

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
)

// Bytes is an amount of storage in the file: 1GiB, 500MB, 1.5TiB or a number of bytes. KB, MB, GB and
// TB are powers of 1000, KiB, MiB, GiB and TiB powers of 1024.
type Bytes int64

// bytesPattern is what [Bytes.UnmarshalText] takes, for the schema.
const bytesPattern = `^[0-9]{1,19}(\.[0-9]{1,9})? ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$`

var bytesForm = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,9})?) ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$`)

var byteUnits = map[string]int64{
	"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

// String is the largest binary unit that is exact, such as 16GiB.
func (b Bytes) String() string {
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if size := byteUnits[unit]; int64(b) >= size && int64(b)%size == 0 {
			return strconv.FormatInt(int64(b)/size, 10) + unit
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText is [Bytes.String].
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads what the type's comment lists; it fails on anything else, on 0 and on more than
// an int64 holds. A fraction of a byte is dropped.
func (b *Bytes) UnmarshalText(text []byte) error {
	errAllowed := fmt.Errorf("an amount above 0 such as 1GiB, 500MB or a number of bytes")
	m := bytesForm.FindSubmatch(text)
	if m == nil {
		return errAllowed
	}
	amount, ok := new(big.Rat).SetString(string(m[1]))
	if !ok {
		return errAllowed
	}
	amount.Mul(amount, new(big.Rat).SetInt64(byteUnits[string(m[2])]))
	whole := new(big.Int).Quo(amount.Num(), amount.Denom())
	if !whole.IsInt64() || whole.Sign() == 0 {
		return errAllowed
	}
	*b = Bytes(whole.Int64())
	return nil
}
