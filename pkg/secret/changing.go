package secret

// Changing is a secret whose source may change: text is what it held, again reads it anew. again must be
// safe for concurrent use, and its error must not contain the secret.
func Changing(text string, again func() (string, error)) String {
	return String{text: &text, again: &again}
}

// Latest is the secret as its source has it now; one that cannot change is returned as it is. After an
// error, which is again's own, the caller goes on with what it has.
func (s String) Latest() (String, error) {
	if s.again == nil {
		return s, nil
	}
	text, err := (*s.again)()
	if err != nil {
		return s, err
	}
	return Changing(text, *s.again), nil
}
