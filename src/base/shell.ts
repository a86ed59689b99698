/** A word for a POSIX shell (XCU 2.2): as it is where nothing in it is special, in single quotes else. */
export const shellWord = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll('\'', '\'\\\'\'')}'`)
