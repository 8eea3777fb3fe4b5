"""Statements: their operation, and their text without what may be secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcprism.protocols import sql


@pytest.mark.parametrize(
    ("statement", "operation", "text"),
    [
        ("SELECT a FROM t1 WHERE id = 12345;", "SELECT", "SELECT a FROM t1 WHERE id = ?"),
        ("select 'it''s', -5.e3, .5,0xFF\n from\t t", "SELECT", "select ?, -?, ?,? from t"),
        ("SELECT * FROM t WHERE a IN (1, 2,3)", "SELECT", "SELECT * FROM t WHERE a IN (?)"),
        ("insert into t values (1,'a'), (2,NULL)", "INSERT", "insert into t values (?)"),
        ("/* by 'x' */ (select 1) -- 2", "SELECT", "(select ?)"),
        ("select 'never ended", "SELECT", "select ?"),
        ("WITH x AS (SELECT 1) DELETE FROM y", "DELETE", "WITH x AS (SELECT ?) DELETE FROM y"),
        ("", "", ""),
    ],
)
def test_statements_of_both(statement: str, operation: str, text: str) -> None:
    assert sql.postgresql(statement.encode()) == (operation, text)
    assert sql.mysql(statement.encode()) == (operation, text)


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (r"select E'a\'b', 'c\', \"D 1\".*", r"select E?, ?, \"D 1\".*"),
        ("select $1, $$a 'b$$, $f$ $$ 1 $f$", "select ?, ?, ?"),
        (r"select LIKE'a\', E'cut\ ".rstrip(), "select LIKE?, E?"),
        ("select a = ANY(ARRAY[1, 2])", "select a = ANY(ARRAY[?])"),
    ],
)
def test_statements_of_postgresql(statement: str, text: str) -> None:
    statement, text = statement.replace('\\"', '"'), text.replace('\\"', '"')
    assert sql.postgresql(statement.encode())[1] == text


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (r"""select "a\"b", 'c\'d', `e 1` # 'f'""", "select ?, ?, `e 1`"),
        ("/*!40101 SET @a = 'b' */", "/*!? SET @a = ? */"),
        ("select 5--3", "select ?--?"),
    ],
)
def test_statements_of_mysql(statement: str, text: str) -> None:
    assert sql.mysql(statement.encode())[1] == text


def test_a_long_list_of_columns_is_left_out() -> None:
    columns = ", ".join(f"column_{number}" for number in range(50))
    described = sql.postgresql(f"SELECT {columns}, max(a) FROM orders WHERE id = 7".encode())
    assert described == ("SELECT", "SELECT ... FROM orders WHERE id = ?")


def test_values_on_demand_but_no_passwords() -> None:
    describe = sql.describer(sql.mysql, show_values=True)
    assert describe(b"SELECT  'x', 1") == ("SELECT", "SELECT 'x', 1")
    assert "hunter" not in describe(b"CREATE USER u IDENTIFIED BY 'hunter2'")[1]


@given(st.binary(max_size=sql.SEEN_MAX))
def test_any_bytes_are_bounded(statement: bytes) -> None:
    for dialect in (sql.postgresql, sql.mysql):
        assert len(dialect(statement)[1]) <= sql.RESOURCE_MAX


@given(st.text("ab' \\\"", max_size=30))
def test_no_string_is_shown(secret: str) -> None:
    quoted = "'" + secret.replace("'", "''") + "'"
    assert sql.postgresql(f"select {quoted} from t".encode()) == ("SELECT", "select ? from t")
    quoted = "'" + secret.replace("\\", "\\\\").replace("'", "\\'") + "'"
    assert sql.mysql(f"select {quoted} from t".encode()) == ("SELECT", "select ? from t")
